"""Sources of kind `url`: a file behind an http, https or file URL, pinned by the manifest itself."""

from __future__ import annotations

from meltrepro.errors import SourceError
from meltrepro.manifest.sources import UrlSource
from meltrepro.store.download import Request, file_url_path
from meltrepro.store.names import redact, split_url
from meltrepro.store.source import Context, Pin, key_of

_SCHEMES = ("https", "http", "file")


class Url:
    """The provider."""

    def resolve(self, source: UrlSource, context: Context) -> Pin:
        """The digest stands in the manifest, the size with the server; transfers the file where it does not say."""
        key = key_of(source)
        size = self._size(source, context)
        if size is None:
            context.downloader.download(self._request(source))
            size = context.store.path(source.digest).stat().st_size
        url = redact(source.url)
        return Pin(source=key, digest=source.digest, size=size, filename=url.rpartition("/")[2] or None, url=url)

    def fetch(self, source: UrlSource, pin: Pin, context: Context) -> None:
        """Transfer the file."""
        context.downloader.download(self._request(source))

    def transfer_size(self, source: UrlSource, context: Context) -> int | None:
        """Size of the file, as its server says."""
        return self._size(source, context)

    def _size(self, source: UrlSource, context: Context) -> int | None:
        request = self._request(source)
        if context.store.has(source.digest):
            return context.store.path(source.digest).stat().st_size
        if split_url(source.url).scheme == "file":
            path = file_url_path(source.url)
            return path.stat().st_size if path.is_file() else None
        return context.downloader.length(request)

    def _request(self, source: UrlSource) -> Request:
        scheme = source.url.partition("://")[0]
        if scheme not in _SCHEMES:
            raise SourceError(
                f"{key_of(source)}: cannot fetch {scheme!r} URLs", hint=f"expected one of: {', '.join(_SCHEMES)}"
            )
        return Request(source.url, key_of(source), source.digest)
