"""What the Hub's client library raises, as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from selmem.errors import InputError

# the library's own error is a subclass of its HTTP client's, whose package changed between versions
HttpError: type[Exception] = HfHubHTTPError.__bases__[0]
_REPEAT = "nothing half done is visible; run the same command again"


@contextmanager
def clear_errors(repo_id: str) -> Iterator[None]:
    """Raise InputError in place of what the client library raises about `repo_id`."""
    try:
        yield
    except RepositoryNotFoundError as error:
        raise InputError(f"{repo_id} is not on the Hub, or this token may not see it") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repo_id} has no such revision; see its tags on the Hub") from error
    except LocalTokenNotFoundError as error:
        raise InputError("no Hugging Face token: run `hf auth login` or set HF_TOKEN") from error
    except HFValidationError as error:
        raise InputError(f"{repo_id} is no repository id; expected NAMESPACE/NAME") from error
    except OfflineModeIsEnabled as error:
        raise InputError(f"{repo_id}: HF_HUB_OFFLINE is set; unset it") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{repo_id} is not in the local cache and the Hub cannot be reached; {_REPEAT}"
        ) from error
    except HfHubHTTPError as error:
        raise InputError(f"{repo_id}: {_explain(error)}") from error
    except HttpError as error:
        raise InputError(f"{repo_id}: the connection failed; {_REPEAT}") from error
    except JSONDecodeError as error:
        raise InputError(f"{repo_id}: the Hub's answer was cut short; {_REPEAT}") from error
    except ValueError as error:
        # the library's own check of the card's metadata
        if not isinstance(error.__cause__, BadRequestError):
            raise
        raise InputError(f"{repo_id}: the Hub refused the card: {error}") from error
    except RuntimeError as error:
        # the library wraps whatever stopped the upload of one file
        if not isinstance(error.__cause__, HttpError):
            raise
        raise InputError(f"{repo_id}: the upload was interrupted; {_REPEAT}") from error


def _explain(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    reasons = {
        400: f"the Hub refused the files ({error.server_message})",
        401: "the Hub refused the token; run `hf auth login` or set HF_TOKEN to a valid one",
        403: "the token may not write here; use one with write access to this namespace",
        412: "the repository changed meanwhile; run the same command again",
    }
    return reasons.get(status, f"the Hub answered {status}; {_REPEAT}")
