"""Plain, slow twins of the matching rules, written from their definitions."""

from collections import Counter

from selmem.omission_rate.alignment import align_ref


def surface_ref(pieces):
    joined = "".join(pieces)
    return joined.strip() or joined


def units_ref(pieces, spans):
    """Return the smallest runs of words whose joint span is made of whole pre-tokens."""
    edges = [0]
    for piece in pieces:
        edges.append(edges[-1] + len(piece))
    text = "".join(pieces)
    visible = [[i for i in range(*span) if not text[i].isspace()] for span in spans]
    spans = [(v[0], v[-1] + 1) if v else span for v, span in zip(visible, spans, strict=True)]
    covers = [
        {i for i in range(len(pieces)) if edges[i] < end and start < edges[i + 1]}
        for start, end in spans
    ]
    units = [({word}, cover) for word, cover in enumerate(covers)]
    merged = True
    while merged:
        merged = False
        for a in range(len(units)):
            for b in range(a + 1, len(units)):
                if units[a][1] & units[b][1]:
                    words, cover = units.pop(b)
                    units[a] = (units[a][0] | words, units[a][1] | cover)
                    merged = True
                    break
            if merged:
                break
    return [(sorted(words), min(cover), max(cover)) for words, cover in units]


def trimmed_ref(pieces, unit):
    words, first, last = unit
    if "".join(pieces[first : last + 1]).strip():
        while not pieces[first].strip():
            first += 1
        while not pieces[last].strip():
            last -= 1
    return words, first, last


def count_ref(pieces, spans, cut, other):
    """Return each word's omitted fraction; `pieces` and `other` are the pre-tokens of two texts."""
    units = [trimmed_ref(pieces, unit) for unit in units_ref(pieces, spans)]
    units = [
        (words, first, last, surface_ref(pieces[first : last + 1]), any(cut[w] for w in words))
        for words, first, last in units
    ]
    numbers = {}
    a, b = (
        [numbers.setdefault(surface_ref([piece]), len(numbers)) for piece in side]
        for side in (pieces, other)
    )
    match = align_ref([a], [b])[0]
    free = set(range(len(other)))
    found = set()
    for is_cut in (False, True):
        own = [unit for unit in units if unit[4] == is_cut]
        for unit in own:
            place = range(match[unit[1]], match[unit[2]] + 1)
            if min(match[unit[1]], match[unit[2]]) >= 0:
                _consume(unit, place, other, free, found)
        for unit in sorted(own, key=lambda unit: -len(unit[3])):
            for j in range(len(other)):
                for k in range(j, len(other)):
                    _consume(unit, range(j, k + 1), other, free, found)
    total = Counter((unit[3], unit[4]) for unit in units)
    hits = Counter((unit[3], unit[4]) for unit in units if tuple(unit[0]) in found)
    rates = [0.0] * len(spans)
    for words, _, _, surface, is_cut in units:
        for word in words:
            rates[word] = 1 - hits[surface, is_cut] / total[surface, is_cut]
    return rates


def _consume(unit, place, other, free, found):
    pieces = [other[i] for i in place]
    whole = all(i in free for i in place)
    # a run that begins or ends with white space of its own is the shorter run's
    tidy = pieces and (not unit[3].strip() or (pieces[0].strip() and pieces[-1].strip()))
    if tuple(unit[0]) not in found and whole and tidy and surface_ref(pieces) == unit[3]:
        free.difference_update(place)
        found.add(tuple(unit[0]))


def kth_occurrence_omissions(reference, reconstruction):
    """Return how many (word, k-th occurrence) pairs of the reference are not in the other list.

    Source: dataminr-ai/ouroboros, eval_analysis/connl/ner_analysis.py.
    """

    def numbered(words):
        seen = Counter()
        for word in words:
            seen[word] += 1
            yield word, seen[word]

    return len(set(numbered(reference)) - set(numbered(reconstruction)))
