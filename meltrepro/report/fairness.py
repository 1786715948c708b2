"""What makes a comparison of two engines unfair: rules that look at two cells, and say in words what is not alike.

A rule is a function of a cell and its reference that returns a sentence, or `None` where it has nothing to say: because both are
alike, or because records do not tell. A new rule is a function and a line in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from meltrepro.manifest.axes import MARK
from meltrepro.record.trace import text_of
from meltrepro.report.cells import software
from meltrepro.report.engines import Prompts, prompts
from meltrepro.report.results import CellResult
from meltrepro.report.values import number

BITS = 0.10
"""How far apart two files of one scheme may be, in bits a weight."""
_ASKED = ("context", "batch", "max_tokens", "ignore_eos", "chat_template")
Rule = Callable[[CellResult, CellResult], str | None]


def unfair(cell: CellResult, reference: CellResult) -> Iterator[tuple[str, str]]:
    """The name of each rule that has something to say, and what it says."""
    for name, rule in RULES.items():
        if (said := rule(cell, reference)) is not None:
            yield name, said


def tokenizer(cell: CellResult, reference: CellResult) -> str | None:
    """Other tokens are other work, whatever the text."""
    ours, theirs = (one.ran_as.get("effective.tokenizer") for one in (cell, reference))
    if ours is not None and theirs is not None and ours != theirs:
        return f"its tokenizer is {text_of(ours)}, that of {software(reference)} is {text_of(theirs)}"
    mine, other = prompts(cell), prompts(reference)
    if mine == other or _first_token(mine, other):
        return None
    at = min(key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key))
    counts = (str(each[at]) if at in each else "no" for each in (mine, other))
    return (
        f"of the same text, its prompt {at[1] + 1} of conversation {at[0] + 1} has {next(counts)} tokens, with"
        f" {software(reference)} {next(counts)}"
    )


def bos(cell: CellResult, reference: CellResult) -> str | None:
    """One token more where a conversation begins, and nowhere else."""
    more = _first_token(prompts(cell), prompts(reference))
    if not more:
        return None
    one, other = (cell, reference) if more > 0 else (reference, cell)
    return f"{software(one)} puts one token more (BOS) before each conversation than {software(other)}"


def _first_token(ours: Prompts, theirs: Prompts) -> int:
    """1 or -1 where the first prompt of each conversation has one token more or less, and all others are alike; else 0."""
    if ours.keys() != theirs.keys():
        return 0
    first = {ours[key] - theirs[key] for key in ours if key[1] == 0}
    later = {ours[key] - theirs[key] for key in ours if key[1] > 0}
    return next(iter(first)) if first in ({1}, {-1}) and later <= {0} else 0


def bits(cell: CellResult, reference: CellResult) -> str | None:
    """More bits are more memory to read for each token, and maybe better answers."""
    ours, theirs = cell.bits_per_weight, reference.bits_per_weight
    if ours is None or theirs is None or abs(ours / theirs - 1) <= BITS:
        return None
    share = abs(ours / theirs - 1)
    return (
        f"its {cell.quantization} takes {number(ours)} bits a weight, that of {software(reference)} {number(theirs)}:"
        f" {share:.0%} {'more' if ours > theirs else 'less'}"
    )


def threads(cell: CellResult, reference: CellResult) -> str | None:
    """As engines say what they use, else as they were asked."""
    ours, theirs = (one.ran_as.get("effective.threads", one.threads) for one in (cell, reference))
    if ours is None or theirs is None or ours == theirs:
        return None
    return f"it computes with {_threads(ours)}, {software(reference)} with {text_of(theirs)}"


def _threads(count: str | int | float | bool) -> str:
    return f"{text_of(count)} thread{'' if count == 1 else 's'}"


def spinning(cell: CellResult, reference: CellResult) -> str | None:
    """Threads that wait busily are faster on a free machine, and take the time of others on a busy one."""
    ours, theirs = (_waiting(one) for one in (cell, reference))
    if ours == theirs:
        return None
    return f"its threads {ours}, those of {software(reference)} {theirs}"


def _waiting(cell: CellResult) -> str:
    said = cell.ran_as.get("effective.spinning")
    if said is None:
        return "wait in a way that it does not tell"
    return "wait busily between operators" if said else "sleep between operators"


def pinning(cell: CellResult, reference: CellResult) -> str | None:
    """Threads that stay on their CPUs keep what is cached there, and wait where another program is on one."""
    ours, theirs = (one.ran_as.get("effective.enable_cpu_pinning") is True for one in (cell, reference))
    if ours == theirs:
        return None
    one, other = (cell, reference) if ours else (reference, cell)
    return f"{software(one)} binds each thread to a CPU, {software(other)} does not or does not tell"


def precision(cell: CellResult, reference: CellResult) -> str | None:
    """Sums of narrower numbers are faster where a CPU has instructions for them, and round more."""
    ours, theirs = (_computed_in(one) for one in (cell, reference))
    if ours == theirs or {ours, theirs} <= {None, "f32"}:
        return None
    told = (f"in {one}" if one else "in what it does not tell" for one in (ours, theirs))
    return f"it computes {next(told)}, {software(reference)} {next(told)}"


def _computed_in(cell: CellResult) -> str | None:
    said = cell.ran_as.get("effective.computed_in", cell.ran_as.get("effective.inference_precision"))
    return None if said is None else text_of(said)


def kv_cache(cell: CellResult, reference: CellResult) -> str | None:
    """Wider keys and values take more memory and time in a long context, and round less."""
    ours, theirs = (one.ran_as.get("effective.cache_types") for one in (cell, reference))
    if ours is None or theirs is None or ours == theirs:
        return None
    return f"it keeps keys and values as {text_of(ours)}, {software(reference)} as {text_of(theirs)}"


def attention(cell: CellResult, reference: CellResult) -> str | None:
    """One fused step reads and writes less memory, and rounds otherwise."""
    ours, theirs = (one.ran_as.get("effective.flash_attention") for one in (cell, reference))
    if ours is None or theirs is None or ours == theirs:
        return None
    return f"its flash attention is {text_of(ours)}, that of {software(reference)} {text_of(theirs)}"


def options(cell: CellResult, reference: CellResult) -> str | None:
    """One engine with other options, as its cells are called."""
    (engine, *ours), (other, *theirs) = (one.framework.split(MARK) for one in (cell, reference))
    if engine != other or ours == theirs:
        return None
    apart = [
        " and ".join(one for one in mine if one not in others) for mine, others in ((ours, theirs), (theirs, ours))
    ]
    return f"it is asked for {apart[0] or 'nothing more'}, the other for {apart[1] or 'nothing more'}"


def sampling(cell: CellResult, reference: CellResult) -> str | None:
    """Other tokens are drawn, at another cost."""
    names = {name for one in (cell, reference) for name in one.options if name.startswith("sampling.")}
    return _asked_otherwise(cell, reference, [*sorted(names), "protocol.seed"])


def request(cell: CellResult, reference: CellResult) -> str | None:
    """Other work under the same name, as two campaigns may have it."""
    return _asked_otherwise(cell, reference, _ASKED)


def _asked_otherwise(cell: CellResult, reference: CellResult, names: Sequence[str]) -> str | None:
    apart = [
        f"{name} {_option(cell, name)} against {_option(reference, name)}"
        for name in names
        if cell.options.get(name) != reference.options.get(name)
    ]
    return ", ".join(apart) or None


def _option(cell: CellResult, name: str) -> str:
    return str(cell.options.get(name, "not set"))


def head(cell: CellResult, reference: CellResult) -> str | None:
    """A head that was padded computes logits of tokens that nobody can draw."""
    ours, theirs = cell.vocabulary, reference.vocabulary
    if ours is None or theirs is None or ours == theirs:
        return None
    return f"it computes {ours:,} logits a token, {software(reference)} {theirs:,}"


def accelerator(cell: CellResult, reference: CellResult) -> str | None:
    """A GPU, or a software device, on one side alone."""
    if cell.software_device != reference.software_device:
        one, other = (cell, reference) if cell.software_device else (reference, cell)
        return f"{software(one)} is a driver that computes on the CPU, and says nothing of a GPU; {software(other)} is none"
    if cell.accelerated == reference.accelerated:
        return None
    one, other = (cell, reference) if cell.accelerated else (reference, cell)
    return f"{software(one)} computes on a GPU, {software(other)} does not"


RULES: dict[str, Rule] = {
    "tokenizer": tokenizer,
    "BOS": bos,
    "bits a weight": bits,
    "threads": threads,
    "waiting threads": spinning,
    "bound threads": pinning,
    "precision": precision,
    "KV cache": kv_cache,
    "flash attention": attention,
    "options": options,
    "sampling": sampling,
    "request": request,
    "padded head": head,
    "GPU": accelerator,
}
