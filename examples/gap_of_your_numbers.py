"""Gap statistics on your own numbers; no model needed. Run: python examples/gap_of_your_numbers.py"""

from isentropic.gap.estimate import paired_gap
from isentropic.gap.verdict import verdict

# H_female - H_male of each pair, in nats, and the template of each pair.
differences = [-0.08, -0.03, -0.11, -0.06, 0.01, -0.07, -0.04, -0.09, -0.02, -0.05]
topics = ["work", "work", "home", "home", "school", "school", "sport", "sport", "maths", "maths"]

estimate = paired_gap(differences, topics)
print(f"gap {estimate.gap:+.4f} nats, 95% interval {estimate.ci95[0]:+.4f} to {estimate.ci95[1]:+.4f}")
print(verdict(estimate, target_gap=0.01).reason)
