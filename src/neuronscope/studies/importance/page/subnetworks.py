"""Each class's sub-network taken out and kept alone, held against random ones; the rules held against each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neuronscope.studies.importance.page.view import View, named, number, seen_labels, texts
from neuronscope.studies.importance.spec import RULES
from neuronscope.views import Axis, Block, Chart, Section, Series, Table, Text


def subnetworks(view: View) -> Iterator[Block]:
    """Taken out, kept alone, and the same under every rule."""
    yield Section(
        "Sub-networks",
        f"What each class loses without its units, and what these units can do alone. Chosen by {view.first}.",
    )
    yield from _taken_out(view)
    yield from _kept(view)
    yield from _rules(view)


def _taken_out(view: View) -> Iterator[Block]:
    frame = pd.DataFrame(
        {
            "class": view.classes,
            "own change": view.get("drop_own"),
            "random": view.get("drop_own_random"),
            "q": view.get("drop_own_q"),
            "others' change": view.get("drop_others"),
            "selective fall": view.get("drop_selective"),
            "selective random": view.get("drop_selective_random"),
            "selective q": view.get("drop_selective_q"),
            "images": view.sub["images"].to_numpy(),
            "intact": view.sub["intact"].to_numpy(),
            "units": view.get("size").astype(int),
            **_ends(view, "drop_own", "own change"),
            **_ends(view, "drop_own_random", "random"),
            **_ends(view, "drop_others", "others"),
            **_ends(view, "drop_selective_random", "selective random"),
        }
    )
    yield Table(
        "removed",
        "Classes without their sub-network",
        frame,
        formats=_formats(frame),
        help={
            "own change": "change of the class's accuracy when its sub-network is silenced, -1 to 1",
            "random": "mean change with random sets of the same size silenced",
            "q": "chance that a random set hits the class as hard, corrected for the number of rules and classes",
            "others' change": "change of the accuracy on the images of all other classes",
            "selective fall": "what the class loses beyond what the others lose: others' change minus own change",
            "selective random": "the same for random sets, mean",
            "selective q": "chance that a random set is as selective, corrected likewise",
            "images": "report images of the class",
            "intact": "accuracy of the untouched network on them",
            "units": "units silenced, in all layers together",
            "own change low": f"lower {view.level:.0%} limit, from the same images before and after (Tango 1998)",
            "random low": "where one random set falls, lower limit",
        },
        text=f"q-values: {view.null(int(view.spec['controls']))}.",
    )
    ticks = Axis("class", ticks=view.classes)
    bare = view.unheld(view.get("drop_own_q"))
    yield Chart(
        "ablation-controls",
        "Own class, against random units",
        "bar",
        (
            _bars(view, "drop_own", "sub-network silenced"),
            *([] if bare else [_bars(view, "drop_own_random", "random units silenced")]),
        ),
        ticks,
        Axis("change of accuracy"),
        text="Whiskers: interval over the images; for random units, where one random set falls.",
    )
    yield Chart(
        "ablation-effect",
        "Own class and the others",
        "bar",
        (
            _bars(view, "drop_own", "the class itself"),
            _bars(view, "drop_others", "all other classes"),
        ),
        ticks,
        Axis("change of accuracy"),
        text="Long bars of both kinds: the units matter to everything, not to this class.",
    )
    yield from _verdict(view)


def _verdict(view: View) -> Iterator[Block]:
    """In words: which classes can be told from random sets, and how."""
    if view.unheld(view.get("drop_own_q")):
        return
    hit, selective = view.told(view.get("drop_own_q")), view.told(view.get("drop_selective_q"))
    if not hit.all():
        yield Text(
            f"Silencing random units hits as hard, as far as can be told: {view.those(~hit)}.",
            tone="note",
        )
    shared = hit & ~selective
    if shared.any():
        yield Text(
            f"Hit harder than by random units, but not more selectively than by random units: "
            f"{view.those(shared)}. Their sub-networks are important, not shown to be theirs.",
            tone="note",
        )
    if not (~hit).any() and not shared.any():
        yield Text("Every class is hit harder, and more selectively, than by random units.")


def _kept(view: View) -> Iterator[Block]:
    frame = pd.DataFrame(
        {
            "class": view.classes,
            "own accuracy": view.get("keep_own"),
            "full accuracy": view.get("keep_full"),
            "precision": view.get("keep_precision"),
            "labels said": view.get("keep_labels").astype(int),
            "informedness": view.get("keep_informedness"),
            "random": view.get("keep_informedness_random"),
            "q": view.get("keep_informedness_q"),
            "modularity A": view.get("modularity_a"),
            "modularity B": view.get("modularity_b"),
            **_ends(view, "keep_own", "own"),
            **_ends(view, "keep_full", "full"),
            **_ends(view, "keep_informedness_random", "random"),
        }
    )
    yield Table(
        "kept",
        "Sub-networks kept alone",
        frame,
        formats=_formats(frame),
        help={
            "own accuracy": "on the images of the class, with all units outside its sub-network silenced",
            "full accuracy": "on all report images",
            "precision": "share of the class among the images called so; 0 if none is",
            "labels said": "different labels that the sub-network still gives; 1: it calls everything the same",
            "informedness": "true positive rate minus false positive rate of the class: 0 for guessing, 1 at best",
            "random": "informedness, mean of random sub-networks of the same size",
            "q": "chance that a random sub-network is as informed, corrected for the number of rules and classes",
            "modularity A": "own / full accuracy",
            "modularity B": "own accuracy x precision, 0 to 1",
        },
        text=(
            "Modularity A rewards collapse: a network that calls every image the class has own accuracy 1 and the "
            "lowest full accuracy, and so the highest A. Informedness is 0 for such a network, which is why it stands "
            "beside both modularity scores."
        ),
    )
    yield Chart(
        "kept-alone",
        "Sub-networks kept alone",
        "bar",
        (
            _bars(view, "keep_own", "own accuracy"),
            _bars(view, "keep_full", "full accuracy"),
            Series("precision", view.get("keep_precision")),
            Series("informedness", view.get("keep_informedness")),
        ),
        Axis("class", ticks=view.classes),
        Axis("fraction"),
        text="High own accuracy with informedness near 0: everything is called the class.",
    )
    said, names = seen_labels(view.get("labels").astype(np.float64), texts(view.sub["predicted_name"]))
    yield Chart(
        "labels-said",
        "Labels that each sub-network still gives",
        "heatmap",
        (Series("given", said),),
        Axis("label given", ticks=names),
        Axis("sub-network kept", ticks=view.classes),
        Axis("1 given, 0 never", limits=(0.0, 1.0)),
        annotate=view.few_cells,
    )
    collapsed = view.get("keep_labels") <= 1
    if collapsed.any():
        yield Text(
            f"Kept alone, some sub-networks call every image the same, whatever it shows: "
            f"{view.those(collapsed)}. Their own accuracy says nothing about the class.",
            tone="warning",
        )
    if view.unheld(view.get("keep_informedness_q")):
        return
    unknown = ~view.told(view.get("keep_informedness_q")) & ~collapsed
    if unknown.any():
        yield Text(
            f"Kept alone, no better informed than random sub-networks, as far as can be told: {view.those(unknown)}.",
            tone="note",
        )


def _rules(view: View) -> Iterator[Block]:
    rows = [_rule_row(view, r) for r in range(len(view.rules))]
    yield Table(
        "rules",
        "All rules on the same budget",
        pd.DataFrame(rows),
        formats=_formats(pd.DataFrame(rows)),
        help={
            "own change": "mean over classes of the change of the class's accuracy without its sub-network",
            "others' change": "mean over classes of the change of all other classes' accuracy",
            "selective fall": "mean over classes of others' change minus own change",
            "selective low": f"lower {view.level:.0%} limit of that mean, for classes like these (Student's t)",
            "random": "mean selective fall of random sets of the same size",
            "hit": f"classes hit harder than by random sets ({view.bound})",
            "selectively": f"classes with a selective fall beyond that of random sets ({view.bound})",
            "against first": "selective fall minus that of the first rule, mean over classes",
            "informedness": "mean over classes, with only the sub-network kept",
            "informed": f"classes whose sub-network alone is better informed than random ones ({view.bound})",
            "area between": f"area between insertion and deletion curve, mean over classes{_alone(view)}",
        },
        text="Intervals of means are over classes; those against the first rule compare the same classes.",
    )
    yield Text(" ".join(f"{rule}: {RULES[rule]}." for rule in view.rules if rule in RULES))
    if len(view.rules) > 1:
        yield _rule_chart(view)
        fall = view.sub["drop_selective"].to_numpy()
        yield Chart(
            "rules-by-class",
            "Selective fall by rule and class",
            "heatmap",
            (Series("selective fall", fall),),
            Axis("class", ticks=view.classes),
            Axis("rule", ticks=view.rules),
            Axis("selective fall"),
            annotate=view.few_cells,
            diverging=True,
        )
        yield from _better(view, rows)


def _alone(view: View) -> str:
    return f" ({texts(view.layers['layer_name'])[-1]} alone)" if view.layers is not None else ""


def _rule_row(view: View, r: int) -> dict[str, str | float]:
    def over(name: str) -> np.ndarray:
        return np.asarray(view.sub[name].to_numpy()[r])

    def told(name: str) -> str:
        return f"{int(view.told(over(name)).sum())} of {len(view.classes)}"

    selective = view.mean(over("drop_selective"))
    against = view.mean(over("drop_selective") - view.get("drop_selective"))
    row: dict[str, str | float] = {
        "rule": view.rules[r],
        "own change": view.mean(over("drop_own")).value,
        "others' change": view.mean(over("drop_others")).value,
        "selective fall": selective.value,
        "selective low": selective.low,
        "selective high": selective.high,
        "random": view.mean(over("drop_selective_random")).value,
        "hit": told("drop_own_q"),
        "selectively": told("drop_selective_q"),
        "against first": against.value if r else np.nan,
        "against low": against.low if r else np.nan,
        "against high": against.high if r else np.nan,
        "informedness": view.mean(over("keep_informedness")).value,
        "informed": told("keep_informedness_q"),
    }
    if view.layers is not None and "between" in view.layers:
        area = view.mean(view.layers["between"].to_numpy()[-1, r])
        row |= {"area between": area.value, "area low": area.low, "area high": area.high}
        if "between_random" in view.layers:
            row["area random"] = view.mean(view.layers["between_random"].to_numpy()[-1, r]).value
    return row


def _rule_chart(view: View) -> Chart:
    series = []
    for name, title in (
        ("drop_own", "the class itself"),
        ("drop_others", "all other classes"),
        ("drop_selective", "selective fall"),
        ("drop_selective_random", "selective fall, random units"),
    ):
        means = [view.mean(row) for row in view.sub[name].to_numpy()]
        series.append(
            Series(
                title,
                np.array([one.value for one in means]),
                low=np.array([one.low for one in means]),
                high=np.array([one.high for one in means]),
            )
        )
    series = [one for one in series if np.isfinite(one.y).any()]
    return Chart(
        "rules-compared",
        "Rules on the same budget",
        "bar",
        tuple(series),
        Axis("rule", ticks=view.rules),
        Axis("change of accuracy"),
        text="Means over classes with intervals for classes like these.",
    )


def _better(view: View, rows: list[dict[str, str | float]]) -> Iterator[Block]:
    """Which rules differ from the first one."""
    if len(view.classes) < 2:  # noqa: PLR2004 no interval over one class
        return
    apart = [row for row in rows[1:] if float(row["against low"]) > 0 or float(row["against high"]) < 0]
    for row in apart:
        word = "more" if float(row["against first"]) > 0 else "less"
        yield Text(
            f"{row['rule']} finds {word} selective sub-networks than {view.first}: "
            f"{number(float(row['against first']), '+.3f')} ({number(float(row['against low']), '+.3f')} to "
            f"{number(float(row['against high']), '+.3f')})."
        )
    alike = [str(row["rule"]) for row in rows[1:] if row not in apart]
    if alike:
        yield Text(f"In selective fall, {named(alike)} cannot be told from {view.first} on these classes.", tone="note")


def _bars(view: View, name: str, title: str) -> Series:
    return Series(title, view.get(name), low=view.get(f"{name}_low"), high=view.get(f"{name}_high"))


def _ends(view: View, name: str, title: str) -> dict[str, np.ndarray]:
    """Limits, in columns of their own."""
    return {f"{title} low": view.get(f"{name}_low"), f"{title} high": view.get(f"{name}_high")}


def _formats(frame: pd.DataFrame) -> dict[str, str]:
    """Three decimals, and two digits of q-values."""
    floats = [str(name) for name in frame.select_dtypes("float").columns]
    return {name: ".2g" if name.split()[-1] == "q" else ".3f" for name in floats}
