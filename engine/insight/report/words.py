"""The words of a page, in English and Chinese, and numbers as people read them."""

from html import escape
from typing import Final

ZH: Final = {
    "Customers": "客户数",
    "Share of customers": "客户占比",
    "Orders": "订单数",
    "Revenue": "消费金额",
    "Share of revenue": "金额占比",
    "Average order": "客单价",
    "Average customer": "人均消费",
    "Tier": "分层",
    "Playbook": "运营策略",
    "R band": "R 档",
    "F band": "F 档",
    "Average M": "平均 M",
    "Days since the last order": "距最近一次消费天数",
    "Orders (F)": "消费次数（F）",
    "Spend (M)": "消费金额（M）",
    "From": "从",
    "To": "到",
    "Month": "月份",
    "Day": "日期",
    "Customer": "客户",
    "Population": "客群",
    "Buyers": "下单客户",
    "First orders": "首单客户",
    "Newest orders": "最近一单所在月",
    "Spend": "累计消费",
    "Below: customers": "以下客户累计占比",
    "Below: revenue": "以下金额累计占比",
    "Best customers": "消费最高的客户",
    "Bought so often": "购买次数",
    "Came again": "再次购买",
    "Probability": "复购概率",
    "by orders": "按订单",
    "by purchase days": "按购买日",
    "Changes": "变动数",
    "Reason": "原因",
    "Undone within 30 days": "30 天内复原",
    "Undone within 14 days": "14 天内复原",
    "Undone within 7 days": "7 天内复原",
    "Share": "占比",
    "Bought again": "有复购",
    "Recent": "近期活跃",
    "Months since the first order": "距首单月数",
    "Before": "此前",
    "Now": "现在",
    "Difference": "差异",
    "No tier": "无分层",
    "Leaving": "将离开",
    "first order": "首单",
    "order": "订单",
    "refund": "退款",
    "cancellation": "取消",
    "adjustment": "调整",
    "recency expired": "最近消费到期",
    "window expired": "统计窗口到期",
    "rules changed": "规则变更",
    "erased": "已删除",
    "cut": "阈值",
}
"""Chinese for what stands in pictures and heads of columns."""


def both(en: str, zh: str | None = None) -> str:
    """Return a text in both languages, of which the page shows one."""
    zh = ZH.get(en, en) if zh is None else zh
    if en == zh:
        return escape(en)
    return f'<span class="en" lang="en">{escape(en)}</span><span class="zh" lang="zh">{escape(zh)}</span>'


def money(minor: int | None, exponent: int) -> str:
    """Return an amount in major units, exactly; a dash for none."""
    if minor is None:
        return "–"
    whole, part = divmod(abs(minor), 10**exponent)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole:,}" + (f".{part:0{exponent}d}" if exponent else "")


def percent(share: float | None) -> str:
    """Return a share in per cent; a dash for none."""
    return "–" if share is None else f"{share:.2%}"


def number(count: int | None) -> str:
    """Return a count; a dash for none."""
    return "–" if count is None else f"{count:,}"
