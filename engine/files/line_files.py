"""Order lines that stand in several files: which of them are one line, and which orders cannot be told."""

from typing import Any

import numpy as np

from rfmstream.engine.files.groups import grouped


def repeated_lines(
    group: np.ndarray[Any, Any],
    identity: np.ndarray[Any, Any],
    content: np.ndarray[Any, Any],
    file: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the lines that repeat a line of an earlier file, and those that contradict one.

    Within one file equal lines are several lines. Of several files the one that has a line most often says how many
    there are. Where the files together then have more lines of one identity than any of them, its lines differ.

    In      group     i64[n] order of each line
            identity  i64[n] what the map says tells lines apart
            content   i64[n] identity, time and amount together
            file      i64[n] ascending
    Out     (bool[n] repeats a line of an earlier file, i64[] the first contradicting line of each order)
    """
    in_file = grouped(content, file)
    order = np.argsort(in_file, kind="stable")
    starts = np.flatnonzero(np.diff(in_file[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, counts)
    repeats = np.ones(len(order), np.bool_)
    repeats[np.unique(grouped(content, rank), return_index=True)[1]] = False

    line = grouped(group, identity)
    kept = np.bincount(line[~repeats], minlength=int(line.max(initial=-1)) + 1)
    of_file, first, count = np.unique(grouped(line, file), return_index=True, return_counts=True)
    assert len(of_file) == len(first)
    most = np.zeros(len(kept), np.int64)
    np.maximum.at(most, line[first], count)
    first_file = np.full(len(kept), np.iinfo(np.int64).max)
    np.minimum.at(first_file, line, file)
    contradicts = np.flatnonzero((kept > most)[line] & ~repeats & (file != first_file[line]))
    return repeats, contradicts[np.unique(group[contradicts], return_index=True)[1]]


def spread_lines(group: np.ndarray[Any, Any], file: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return i64[]: of each order whose lines stand in several files, its first line that is not in the first."""
    first_file = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_file, group, file)
    elsewhere = np.flatnonzero(file != first_file[group])
    first: np.ndarray[Any, Any] = elsewhere[np.unique(group[elsewhere], return_index=True)[1]]
    return first
