"""Statistics of hospitals' patients as studies that count: what is asked, and how a noised answer is read.

A question becomes tables over public groups (:mod:`models.counting`), which travel as any study does. Estimates and
intervals are post-processing of the noised tables. Start reading at :mod:`orchestrator.analytics.questions`.
"""
