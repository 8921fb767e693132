"""Whether one scene is part of another, whatever the ids: what a plan may draw before the rest."""

from staged.scene_graph.graph import SceneGraph


def embeds(part: SceneGraph, whole: SceneGraph) -> bool:
    """Whether every object of `part` can be an object of its own in `whole`.

    Classes must be equal, and whatever attributes and relations `part` states must be stated there
    too. So a scene that still lacks something embeds, and one that contradicts does not.
    """
    attributes = {
        graph: {o.id: {(a.kind, a.value) for a in graph.attributes_of(o.id)} for o in graph.objects}
        for graph in (part, whole)
    }
    relations = {(r.source, r.name, r.target) for r in whole.relations}
    candidates = [
        (
            item.id,
            [
                other.id
                for other in whole.of_class(item.class_name)
                if attributes[part][item.id] <= attributes[whole][other.id]
            ],
        )
        for item in part.objects
    ]

    def complete(chosen: dict[str, str]) -> bool:
        stated = [
            (chosen[r.source], r.name, chosen[r.target])
            for r in part.relations
            if r.source in chosen and r.target in chosen
        ]
        if not relations.issuperset(stated):
            return False
        if len(chosen) == len(candidates):
            return True
        item, others = candidates[len(chosen)]
        return any(
            complete({**chosen, item: other}) for other in others if other not in chosen.values()
        )

    return complete({})


def same_scene(first: SceneGraph, second: SceneGraph) -> bool:
    """Whether two graphs state the same, whatever the ids."""
    return embeds(first, second) and embeds(second, first)
