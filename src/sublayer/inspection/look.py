"""Looking into a model while it reads a text: a `View`, for each of the three shapes.

What a model writes (a translation, the rest of a prompt) is searched first. Then the whole is read once more in one
pass with the taps listened to, which shows the attention of every layer and head, the candidates at every position, and
the residual stream after every layer. That one pass agrees with the steps of the search is the law `cached = uncached`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.generation.constraints import ForcedStart
from sublayer.generation.finite import NotFinite, refuse
from sublayer.generation.loop import decode, most_probable
from sublayer.generation.model_steps import ModelSteps
from sublayer.generation.request import DecodeRequest
from sublayer.generation.translator import Translator
from sublayer.inspection import evidence, view
from sublayer.inspection.editing import Edit, edit, zero_ablate
from sublayer.inspection.evidence import attention_map, row
from sublayer.inspection.examples import logits_of
from sublayer.inspection.groups import Group, groups
from sublayer.inspection.labelling import labelled, spellings
from sublayer.inspection.lens import last_stack, scaled_output
from sublayer.inspection.loaded_model import LoadedModel, describe, model_of
from sublayer.inspection.recording import record
from sublayer.models import DecoderOnly, EncoderDecoder, EncoderOnly, SequenceToSequence
from sublayer.models import Transformer as Model
from sublayer.models.backend import DecoderBackend
from sublayer.models.evaluating import evaluating
from sublayer.models.heads import meaning
from sublayer.models.stack import Stack
from sublayer.reading.filler import with_masks
from sublayer.text.tokens import Tokens

Check = Callable[[], None]


def look(
    loaded: LoadedModel, question: view.Question, *, about: view.About | None = None, check: Check | None = None
) -> view.View:
    """What happens in the model while it reads `question.text`, and writes.

    The model is put into evaluation for the while.

    Args:
        about: as `describe` gives it, if it is there already. check: called before each layer; it may raise to give up.

    Raises:
        InputError: the text is empty or too long to be looked at, or the question does not fit the model.
    """
    begun = time.perf_counter()
    model = model_of(loaded)
    about = describe(loaded) if about is None else about
    if not question.text.strip():
        raise InputError("there is no text", "Type a sentence.")
    with evaluating(model), torch.no_grad(), ExitStack() as hooks:
        if check is not None:
            _before_each_layer(model, check, hooks)
        found = _looked(loaded, model, question, about)
        if question.silenced and isinstance(found.output, view.Vector):
            whole = _looked(loaded, model, question.model_copy(update={"silenced": ()}), about)
            assert isinstance(whole.output, view.Vector)
            found = replace(found, output=replace(found.output, likeness=_cosine(found.output, whole.output)))
    return replace(found, seconds=time.perf_counter() - begun)


def _looked(loaded: LoadedModel, model: Model, question: view.Question, about: view.About) -> view.View:
    edits = _edits(question.silenced, model)
    with ExitStack() as hooks:
        if edits:
            hooks.enter_context(edit(model, edits))
        match model:
            case EncoderDecoder():
                return _translation(loaded, model, question, about)
            case DecoderOnly():
                return _continuation(loaded, model, question, about)
            case EncoderOnly():
                return _reading(loaded, model, question, about)


# --- the three shapes --------------------------------------------------------------------------------------------


def _translation(loaded: LoadedModel, model: EncoderDecoder, question: view.Question, about: view.About) -> view.View:
    tokenizer, device = loaded.tokenizer, model.device
    translator = _translator(loaded, model)
    [source] = translator.encode([question.text])
    _require_fit(len(source), about)
    target, complete, by = _translated(translator, source, question, about)
    start, end = translator.affixes.start, translator.affixes.end
    fed, predicted = [start, *target], [*target, end] if complete else target
    with record(model, "*_attention.weights", "decoder.embedding.stream", "decoder.layers.*.stream") as seen:
        model.hidden(row(source, device), None, row(fed, device))
    # Where the translation was cut, nothing stands after its last token.
    stands = [*predicted, None][: len(fed)]
    predictions, sure, lens = _expected(loaded, model, evidence.streams(seen), stands, question)
    [spans] = tokenizer.tokens([question.text], add_special_tokens=False)
    kinds = _kinds(model)
    given = None if question.target is None else tokenizer.tokens([question.target], add_special_tokens=False)[0]
    shown = labelled(tokenizer, [*fed, *predicted[len(target) :]], question.target or "", given)
    return view.View(
        about=about,
        question=question,
        sequences={
            "source": labelled(tokenizer, source, question.text, spans),
            "target": shown[: len(fed)],
            "predicted": shown[1:],
        },
        maps=[
            attention_map(seen, kinds["cross"], "Cross", "predicted", "source", len(predicted)),
            attention_map(seen, kinds["encoder"], "Encoder", "source", "source"),
            attention_map(seen, kinds["decoder"], "Decoder", "target", "target"),
        ],
        output=view.Written(tokenizer.decode([target])[0].strip(), complete, by, sum(sure)),
        predictions=predictions,
        lens=lens,
        made=1,
    )


def _translator(loaded: LoadedModel, model: EncoderDecoder) -> Translator:
    if isinstance(loaded, Translator):
        return loaded
    own = config.Decoding.parse(getattr(loaded, "decoding", {}), "decoding")
    return Translator(model, loaded.tokenizer, own)


def _translated(
    translator: Translator, source: list[int], question: view.Question, about: view.About
) -> tuple[list[int], bool, str]:
    """The translation's tokens without markers, whether it has come to its end, and how it was made."""
    decoding, affixes = translator.decoding, translator.affixes
    room = about.longest - 1  # the start marker takes a position too
    if question.target is not None:
        if question.forced:
            raise InputError("a translation is given, and tokens to begin with as well", "Give one of them.")
        [words] = translator.tokenizer.encode([question.target])
        target = [*affixes.forced, *words]
        _require_fit(len(target) + 1, about)
        return target, True, "given"
    if question.forced:
        most = min(room, decoding.room(len(source)))
        ends = {affixes.end, *decoding.end_ids}
        made, end = _went_on(
            translator.model, source, affixes.start, question.forced, ends, most - len(question.forced), about
        )
        return made, end is not None, "greedy, from the chosen token on"
    best = translator.search([source])[0][0]
    by = f"beam search of {decoding.beam}" if decoding.beam > 1 else "greedy search"
    return best.tokens[:room], best.complete and len(best.tokens) <= room, by


def _continuation(loaded: LoadedModel, model: DecoderOnly, question: view.Question, about: view.About) -> view.View:
    tokenizer, device = loaded.tokenizer, model.device
    if question.target is not None:
        raise InputError("this model goes on from a text: it has no translation to read along", "Leave it out.")
    prompt, spans = _prompt(loaded, question)
    _require_fit(len(prompt) + len(question.forced), about)
    ends = {*_own_ends(loaded), *([] if tokenizer.specials.end is None else [tokenizer.specials.end])}
    room = min(question.tokens, about.longest - len(prompt) - len(question.forced))
    made, end = _went_on(model, prompt[:-1], prompt[-1], question.forced, ends, room, about)
    ids = [*prompt, *made]
    with record(model, "*_attention.weights", "decoder.embedding.stream", "decoder.layers.*.stream") as seen:
        model.hidden(row(ids, device))
    predictions, sure, lens = _expected(loaded, model, evidence.streams(seen), [*ids[1:], end], question)
    by = "greedy, from the chosen token on" if question.forced else "greedy search"
    return view.View(
        about=about,
        question=question,
        sequences={"text": labelled(tokenizer, ids, question.text, spans)},
        maps=[attention_map(seen, _kinds(model)["decoder"], "Self-attention", "text", "text")],
        output=view.Written(tokenizer.decode([made])[0], end is not None, by, sum(sure[len(prompt) - 1 :])),
        predictions=predictions,
        lens=lens,
        made=len(prompt),
    )


def _own_ends(loaded: LoadedModel) -> tuple[int, ...]:
    """The tokens that end this model's texts besides the tokenizer's end marker."""
    decoding = getattr(loaded, "decoding", {})
    own = decoding if isinstance(decoding, config.Generation) else config.Generation.parse(decoding, "decoding")
    return own.end_ids


def _prompt(loaded: LoadedModel, question: view.Question) -> tuple[list[int], Tokens | None]:
    """The prompt's tokens, and what they were made from where that is the text alone."""
    tokenizer = loaded.tokenizer
    if question.chat:
        return tokenizer.encode_chat([{"role": "user", "content": question.text}]), None
    [spans] = tokenizer.tokens([question.text])
    return spans.ids, spans


def _reading(loaded: LoadedModel, model: EncoderOnly, question: view.Question, about: view.About) -> view.View:
    tokenizer, head = loaded.tokenizer, model.config.head
    if question.target is not None or question.forced:
        raise InputError("this model reads and does not write: there is nothing to begin with", "Leave it out.")
    if isinstance(head, config.MaskedLanguage) and tokenizer.specials.mask is not None:
        tokens = with_masks(question.text, tokenizer)
    else:
        [tokens] = tokenizer.tokens([question.text])
    if isinstance(head, config.SentenceEmbedding) and head.longest is not None:
        tokens = tokens.cut(head.longest)
    _require_fit(len(tokens), about)
    token_type_ids = row(tokens.token_type_ids, model.device) if model.config.embedding.token_types else None
    with record(model, "*_attention.weights", "encoder.embedding.stream", "encoder.layers.*.stream") as seen:
        model.hidden(row(tokens.ids, model.device), None, token_type_ids)
    output, predictions, lens = _head_output(loaded, model, tokens, evidence.streams(seen), question)
    return view.View(
        about=about,
        question=question,
        sequences={"text": labelled(tokenizer, tokens.ids, question.text, tokens)},
        maps=[attention_map(seen, _kinds(model)["encoder"], "Self-attention", "text", "text")],
        output=output,
        predictions=predictions,
        lens=lens,
    )


def _head_output(
    loaded: LoadedModel, model: EncoderOnly, tokens: Tokens, stream: Sequence[Tensor], question: view.Question
) -> tuple[view.Output, Sequence[view.Prediction], view.Lens | None]:
    """What the head says, what it expects at each position, and the lens, as far as the head has them."""
    match model.config.head:
        case config.MaskedLanguage():
            mask = loaded.tokenizer.specials.mask
            masks = tuple(place for place, token in enumerate(tokens.ids) if token == mask)
            stands = [None if token == mask else token for token in tokens.ids]
            predictions, _, lens = _expected(loaded, model, stream, stands, question)
            return view.Words(masks), predictions, lens
        case config.Classification(labels=labels) as head:

            def read(x: Tensor) -> Tensor:
                return meaning(head, model.read(model.encoder.norm(x)).float())

            chances = _floats(read(stream[-1])[0])
            ranked = sorted(zip(labels, chances, strict=True), key=lambda one: -one[1])
            return view.Labelled(tuple(ranked)), (), evidence.label_lens(stream, read, labels)
        case config.Tagging(labels=labels):

            def each(x: Tensor) -> Tensor:
                return _after(model, x).float().softmax(-1)

            chance, best = each(stream[-1])[0].max(-1)
            tags = zip([labels[int(label)] for label in best], _floats(chance), strict=True)
            return view.Tagged(tuple(tags)), (), evidence.label_lens(stream, each, labels)
        case config.SentenceEmbedding():
            return view.Vector(tuple(_floats(model.read(model.encoder.norm(stream[-1]))[0]))), (), None
        case config.NoHead():
            return view.Nothing(), (), None


def _expected(
    loaded: LoadedModel, model: Model, stream: Sequence[Tensor], stands: Sequence[int | None], question: view.Question
) -> tuple[list[view.Prediction], list[float], view.Lens]:
    """What the model expects at each position, how sure it is of what stands there, and the lens."""
    read, spelled = partial(_after, model), spellings(loaded.tokenizer)
    predictions, sure = evidence.predictions(stream[-1], read, stands, spelled)
    return predictions, sure, evidence.lens(stream, read, question.lens_from, spelled, model)


def _after(model: Model, x: Tensor) -> Tensor:
    """What the model would say, were this its last layer's stream. Shape: [1, P, D] -> [1, P, V or C]."""
    stack, _ = last_stack(model)
    return logits_of(model, scaled_output(model, stack.norm(x)))


def _kinds(model: Model) -> dict[view.MapName, Group]:
    return {kind.name: kind for kind in groups(model)}


# --- going on, and giving up -------------------------------------------------------------------------------------


def _went_on(
    model: SequenceToSequence | DecoderOnly,
    source: Sequence[int],
    first: int,
    forced: Sequence[int],
    ends: set[int],
    most: int,
    about: view.About,
) -> tuple[list[int], int | None]:
    """The tokens of `forced` and up to `most` greedy ones after them, and the token that ended them, if one did.

    Args:
        source, first: what the model is started with, and what it is then fed, as the step contract has it.
    """
    for token in forced:
        if token >= about.vocabulary:
            raise InputError(f"there is no token {token}", f"The vocabulary is 0 to {about.vocabulary - 1}.")
    made: list[int] = []
    count = len(forced) + max(most, 0)
    if not count:
        return made, None
    request = DecodeRequest([first], frozenset(ends), [count])
    constraints = [ForcedStart(tuple(forced))] if forced else []
    steps = ModelSteps(cast("DecoderBackend[Any]", model), model.device)
    state = steps.start([source], num_beams=1, capacity=count)
    try:
        for step in decode(steps, state, request, most_probable, constraints=constraints, scored=False):
            if step[0].ending == "end":
                return made, step[0].token
            made.append(step[0].token)
    except NotFinite as error:
        refuse(steps.model, *steps.padded([source]), request, error.step)
    return made, None


def _before_each_layer(model: Model, check: Check, hooks: ExitStack) -> None:
    def ask(*_: object) -> None:
        check()

    for stack in model.modules():
        if isinstance(stack, Stack):
            for layer in stack.layers:
                hooks.callback(layer.register_forward_pre_hook(ask).remove)


def _edits(silenced: Iterable[view.Head], model: Model) -> dict[str, Edit]:
    """By the tap of what a layer's heads have found, those that are off. Their weights are seen as ever."""
    kinds = _kinds(model)
    off: dict[str, list[int]] = {}
    for one in silenced:
        kind = kinds.get(one.map)
        taps = [] if kind is None else kind.taps("heads")
        if kind is None or one.layer >= len(taps) or one.head >= kind.heads:
            sizes = ", ".join(f"{len(each.attentions)} x {each.heads} ({name})" for name, each in kinds.items())
            raise InputError(
                f"there is no head {one.head} in layer {one.layer} of '{one.map}'", f"Layers x heads: {sizes}."
            )
        off.setdefault(taps[one.layer], []).append(one.head)
    return {name: zero_ablate(*heads) for name, heads in off.items()}


def _require_fit(tokens: int, about: view.About) -> None:
    if tokens > about.longest:
        raise InputError(
            f"the text has {tokens} tokens, but {about.longest} is the most that can be looked at in this model",
            "Shorten it.",
        )


def _cosine(one: view.Vector, other: view.Vector) -> float:
    return float(torch.cosine_similarity(torch.tensor(one.values), torch.tensor(other.values), dim=0))


def _floats(values: Tensor) -> list[float]:
    return cast("list[float]", values.double().tolist())
