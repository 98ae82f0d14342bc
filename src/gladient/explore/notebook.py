# /// script
# [tool.marimo.display]
# theme = "light"
# ///
"""The page of `gladient explore`: a marimo notebook; `gladient explore --edit` opens a copy of it."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="gladient explore")


@app.cell
def _():
    from itertools import combinations

    import marimo as mo

    from gladient import answers, explore, landscape
    from gladient.explore import controls, pictures, tables

    return answers, combinations, controls, explore, landscape, mo, pictures, tables


@app.cell
def _(controls, explore, mo):
    # Fields and sliders show one setting: what is typed moves the sliders, and what is moved is typed into the fields.
    # Only a change on one side redraws the other, so that a slider is not replaced while it moves.
    get_shown, set_shown = mo.state(explore.Fields())
    get_typed, set_typed = mo.state(explore.Fields())
    get_moved, set_moved = mo.state(explore.Fields())
    desk = controls.Desk(explore.Fields(), set_shown, set_typed, set_moved)
    return desk, get_moved, get_shown, get_typed


@app.cell
def _(controls, desk, get_moved, mo):
    fields = controls.fields(get_moved(), desk)
    mo.sidebar(mo.vstack(fields), width="20rem")
    return (fields,)


@app.cell
def _(controls, desk, get_typed, mo):
    sliders = controls.sliders(get_typed(), desk)
    mo.sidebar(mo.vstack(sliders), width="20rem")
    return (sliders,)


@app.cell
def _(mo):
    mo.md(
        """
        # What gates can reach

        A prompt shows examples of tasks, one task after the other, then asks about a task of its own. One layer of
        gated linear attention takes one weighted step of gradient descent on the examples; its gates decide the
        weights. Set the prompt on the left: everything on this page is computed exactly for it.
        """
    )
    return


@app.cell
def _(controls, get_shown, mo):
    setting, problem = controls.read(get_shown())
    mo.stop(setting is None, controls.error(problem))
    mo.md(f"The same from a shell: `{get_shown().command()}`")
    return (setting,)


@app.cell
def _(mo):
    mo.md(
        """
        ## The ladder: the best risk of each family of gates

        Risks on this page are expected squared errors at the query. M is the risk of predicting 0, σ² + tr Σ.
        """
    )
    return


@app.cell
def _(mo):
    with_delta = mo.ui.switch(label="with the delta rules, which take longer")
    with_delta
    return (with_delta,)


@app.cell
def _(answers, landscape, mo, setting, tables, with_delta):
    ladder = landscape.ladder(setting)
    gates = answers.gates(ladder)
    beside = answers.rotations(ladder) + (answers.delta_rules(ladder) if with_delta.value else [])
    mo.Html(tables.ladder(gates + beside + answers.floors(ladder), setting))
    return gates, ladder


@app.cell
def _(mo):
    mo.md("""## Weights, and the risk of all others""")
    return


@app.cell
def _(answers, gates, mo, pictures, setting):
    proved = answers.verdict(setting)
    weights = mo.Html(pictures.svg(pictures.draw_weights(gates), "Weight of one example of each task"))
    if setting.K == 2:
        drawn = pictures.draw_circle(answers.around(setting), proved.stationary, gates)
        circle = mo.Html(pictures.svg(drawn, "Risk of all weights"))
    else:
        circle = mo.md("The risk of all weights can be drawn for two tasks.")
    mo.hstack([weights, circle], justify="start", wrap=True)
    return (proved,)


@app.cell
def _(mo, proved, tables):
    mo.vstack(
        [
            mo.md(proved.sentences),
            mo.Html(tables.stationary(proved.stationary)),
        ]
    )
    return


@app.cell
def _(mo):
    layers = mo.ui.slider(start=1, stop=3, value=2, label="layers", show_value=True)
    mo.vstack([mo.md("## Do I need gates if I have layers?"), layers])
    return (layers,)


@app.cell
def _(answers, layers, mo, setting, tables):
    mo.stop(
        not answers.has_stacks(setting), mo.md("Several layers have an exact risk where all variances of Σ are equal.")
    )
    mo.Html(tables.layers(answers.stacks(setting, [layers.value]), setting))
    return


@app.cell
def _(combinations, mo, setting):
    mo.stop(setting.K < 2, mo.md("A map takes two tasks."))
    pair = mo.ui.dropdown(
        {f"r{one + 1} and r{other + 1}": (one, other) for one, other in combinations(range(setting.K), 2)},
        value="r1 and r2",
        label="over",
    )
    mo.vstack([mo.md("## Where gates gain"), pair])
    return (pair,)


@app.cell
def _(mo, pair, pictures, setting):
    here = [float(setting.r[task]) for task in pair.value]
    mo.vstack(
        [
            mo.Html(pictures.gain_map(setting, pair.value).at(*here)),
            mo.md(
                "Cross: this setting. Line: where a scalar gate stops attaining the optimum. "
                "White: correlations that cannot occur together."
            ),
        ]
    )
    return


@app.cell
def _(explore, mo):
    model = mo.ui.dropdown(
        {name.replace("_", " "): name for name in explore.WATCHED}, value="scalar gate", label="model"
    )
    steps = mo.ui.slider(steps=[100, 200, 400, 800], value=400, label="steps", show_value=True)
    start, halt = mo.ui.run_button(label="Train it"), mo.ui.run_button(label="Stop", kind="neutral")
    last: list[object] = []  # the training that was started last
    mo.vstack(
        [
            mo.md("## Train it: a small model falls onto its line"),
            mo.hstack([model, steps, start, halt], justify="start"),
        ]
    )
    return halt, last, model, start, steps


@app.cell
def _(controls, explore, halt, ladder, last, mo, model, setting, start, steps):
    # Whatever this cell depends on stops the training when it changes: marimo tells the thread to exit.
    exact = {name: getattr(ladder, name).risk for name in dict.fromkeys(("linear_attention", model.value))}
    if start.value:
        last[:], watched = controls.begin(setting, model.value, steps.value, exact)
    elif halt.value and last:
        watched = controls.trained(last[0], exact)
    else:
        watched = mo.md("")
    watched
    return


if __name__ == "__main__":
    app.run()
