"""An exported folder, sent to a repository of the Hugging Face Hub."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from fettle.errors import AuthenticationError, ConfigError, FettleError, UnreachableError

REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
NOT_LET_IN = (401, 403)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent, and where to."""

    folder: Path
    repository: str
    public: bool

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise ConfigError(f"--push {self.repository} is no name of a repository: write OWNER/NAME")

    def files(self) -> Iterator[tuple[str, int]]:
        """Each file's name and bytes."""
        for path in sorted(self.folder.iterdir()):
            yield path.name, path.stat().st_size

    def sent(self) -> str:
        """Send it; returns the address of the commit.

        Raises:
            AuthenticationError: there is no token here, or the hub does not take it.
            UnreachableError: the hub cannot be reached.
        """
        if get_token() is None:
            raise AuthenticationError("there is no token for the hub here: log in with hf auth login, or set HF_TOKEN")
        hub = HfApi()
        try:
            hub.create_repo(self.repository, private=not self.public, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=self.repository, folder_path=self.folder, commit_message=f"Export of {self.folder.name}"
            )
        except HfHubHTTPError as error:
            kind: type[FettleError] = (
                AuthenticationError if error.response.status_code in NOT_LET_IN else UnreachableError
            )
            raise kind(f"the hub did not take {self.repository}: {str(error).splitlines()[0]}") from error
        except (OfflineModeIsEnabled, httpx.TransportError) as error:
            raise UnreachableError(f"the hub at {hub.endpoint} cannot be reached: {error}") from error
        return str(commit.commit_url)
