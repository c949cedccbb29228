"""Whether a plan has a single view, without a name, as all rulesets had before there were views."""

from rfmstream.schemas.plan import Plan


def is_plain(plan: Plan) -> bool:
    """Tell whether a plan is a single ruleset for all orders, so that all is written as it was before."""
    [view, *others] = plan.views
    return not others and not view.attributes and not view.shadow and view.name == view.ruleset.name


def is_parted(plan: Plan) -> bool:
    """Tell whether consumers have to tell several views apart, or populations of one."""
    shown = [view for view in plan.views if not view.shadow]
    return len(shown) > 1 or any(view.per is not None for view in shown)
