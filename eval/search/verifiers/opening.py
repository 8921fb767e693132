"""From settings to a verifier that is ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from eval.geneval.detector import CLIP, MASK2FORMER, open_detector
from eval.geneval.prompt import GenEvalPrompt
from eval.geneval.prompts import load_prompts
from eval.geneval.selftest import check, miniature_golden, read_golden
from eval.rewards.kinds import KINDS
from eval.search.settings import VerifierSettings
from eval.search.verifier import NOT_SELF_TESTED
from staged.backends.lmm.asker import Asker
from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.kept import kept_answers
from staged.backends.lmm.settings import LmmSettings
from staged.jobs.rank import Rank
from staged.roles import Verifier
from staged.shapes.players import lmm as shapes_lmm


@contextmanager
def open_verifier(
    settings: VerifierSettings,
    *,
    folder: Path,
    rank: Rank,
    geneval: Mapping[str, GenEvalPrompt] | None = None,
) -> Iterator[Verifier]:
    """Load who rates.

    Args:
        settings: Which.
        folder: Of what is drawn; a language model's answers are kept beside it, so that none is
            paid for twice.
        rank: Which of the processes that share the work this is.
        geneval: GenEval's prompts by text, where the pictures are of them; without them a detector
            is the miniature world's.

    Raises:
        ValueError: there are no such weights, or they do not fit, or a detector fails its
            self-test.
    """
    match settings.kind:
        case "detector":
            yield _detector(settings, geneval)
        case "inspector":
            yield _inspector(settings)
        case "lmm":
            assert settings.lmm is not None  # checked with the settings
            with _answers(settings, folder, rank) as log:
                yield _lmm(settings.lmm, log)
        case "vqascore" if settings.lmm is not None:
            with _answers(settings, folder, rank) as log:
                yield _vqa_server(settings, settings.lmm, log)
        case _:
            yield _reward(settings)


@contextmanager
def _answers(settings: VerifierSettings, folder: Path, rank: Rank) -> Iterator[AttemptLog]:
    with kept_answers(folder / "verifier", usd=settings.budget_usd, rank=rank) as log:
        yield log


def _detector(settings: VerifierSettings, geneval: Mapping[str, GenEvalPrompt] | None) -> Verifier:
    from eval.search.verifiers.detector import MINIATURE, GenEvalVerifier, MiniatureVerifier

    if geneval is None:
        return MiniatureVerifier()
    if settings.weights == MINIATURE:
        detector = open_detector(MINIATURE)
        check(detector, miniature_golden())
        return GenEvalVerifier(detector, geneval)
    detector = open_detector(
        "mask2former",
        weights=settings.weights or MASK2FORMER,
        clip=settings.clip or CLIP,
        device=settings.device,
    )
    if settings.golden is None:
        detector = replace(detector, name=f"{detector.name}{NOT_SELF_TESTED}")
    else:
        check(detector, read_golden(settings.golden))
    return GenEvalVerifier(detector, geneval)


def _inspector(settings: VerifierSettings) -> Verifier:
    from eval.search.verifiers.inspector import InspectorVerifier
    from staged.generate.role_choice import open_engine
    from staged.model.weights_hash import weights_hash

    assert settings.weights is not None  # checked with the settings
    engine = open_engine(settings.weights, device=settings.device)
    digest = weights_hash((engine.model, engine.codec.autoencoder))[:12]
    return InspectorVerifier(engine, f"inspections of {settings.weights}, weights {digest}")


def _lmm(settings: LmmSettings, log: AttemptLog) -> Verifier:
    from eval.search.verifiers.lmm import LmmVerifier

    return LmmVerifier(Asker(lambda: shapes_lmm.client_of(settings, log=log), settings.model))


def _vqa_server(settings: VerifierSettings, lmm: LmmSettings, log: AttemptLog) -> Verifier:
    from eval.rewards.scorers import VqaScorer
    from eval.search.verifiers.reward import RewardVerifier
    from eval.vqa.server import ServerAnswerer

    answerer = ServerAnswerer(lmm, log, purpose="verify", top_logprobs=settings.top_logprobs)
    return RewardVerifier(VqaScorer(answerer))


def _reward(settings: VerifierSettings) -> Verifier:
    from eval.rewards.opening import open_scorer
    from eval.search.verifiers.reward import RewardVerifier

    weights = {"clip": settings.clip, settings.kind: settings.weights}
    assert settings.kind in KINDS
    return RewardVerifier(open_scorer(settings.kind, weights, device=settings.device))


def geneval(
    prompts: str,
    weights: str | None = None,
    clip: str | None = None,
    golden: str | None = None,
    device: str = "auto",
) -> Verifier:
    """GenEval's detector as the scorer of `staged reinforce`, for prompts of its kind.

    Args:
        prompts: File of what they ask for, in GenEval's form (a JSON record a line).
        weights: Of the detector, or `miniature`; see `VerifierSettings`, as the next three.
        clip: Of the judge of colours.
        golden: Folder of its self-test.
        device: Where it computes.

    Raises:
        ValueError: As `open_verifier`, or the file is not of that form.
    """
    asked = {prompt.text: prompt for prompt in load_prompts(Path(prompts)).prompts}
    settings = VerifierSettings(
        kind="detector",
        weights=weights,
        clip=clip,
        golden=None if golden is None else Path(golden),
        device=device,
    )
    return _detector(settings, asked)
