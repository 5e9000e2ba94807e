"""Small files of every kind, for the tests of the readers."""

from selmem.chunks import cut_chunk, tokenize_document
from selmem.corpora import read_documents

CONLL = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- -X- O

Rome NNP I-NP I-LOC
Italy NNP B-NP B-LOC
"""

CONLLU = """# newdoc id = first
# sent_id = 1
# text = He didn't go.
1\tHe\the\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No
4.1\tthere\tthere\tADV\tRB\t_\t_\t_\t4:advmod\t_
5\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_

# newpar
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
3\t!\t!\tPUNCT\t_\t_\t0\troot\t_\t_

# newdoc id = second
1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""

GUM = """# newdoc id = gum
# global.Entity = GRP-etype-infstat-salience
1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\tEntity=(1-organization-new
2\tbank\tbank\tNOUN\tNN\t_\t0\troot\t_\t_
3\tof\tof\tADP\tIN\t_\t4\tcase\t_\t_
4\tItaly\tItaly\tPROPN\tNNP\t_\t2\tnmod\t_\tEntity=(2-place-new)1)
5\tlent\tlend\tVERB\tVBD\t_\t0\troot\t_\t_
6\tMs\tMs\tPROPN\tNNP\t_\t5\tiobj\t_\tEntity=(3[1/2]-person-new
7\tRossi\tRossi\tPROPN\tNNP\t_\t6\tflat\t_\tEntity=3[1/2])(4-object-new|SpaceAfter=No
8\tit\tit\tPRON\tPRP\t_\t5\tobj\t_\tEntity=(5-object-giv)4)
"""


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(folder, name, content, option=""):
    return list(read_documents(write(folder, name, content) + option))


def chunks_of(document, tokenizer, length):
    """Return every whole window of `length` tokens of a document."""
    tokenized = tokenize_document(document, tokenizer)
    n_chunks = len(tokenized.token_ids) // length
    return [cut_chunk(tokenized, tokenizer, length, number) for number in range(n_chunks)]
