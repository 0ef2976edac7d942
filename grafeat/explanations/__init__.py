"""Which backbone dominates a prediction, and whether to believe it.

- Values and shares: `game` plays the backbones' coalitions, `shapley` shares out, `report` says it, `dominance` asks.
- Knock-outs: `knockouts` masks edges and patches. `routing` says where attention goes, which is no explanation.
- Patches: `relevance` by any method, of `attributions` (features) or `rollout` (attention), on the `standardised`
  model; `dominant` are the few that decide.
- Trust: `faithfulness` measures, `removal` takes pictures apart, `controls` are bad on purpose, `verdict` says what an
  `audit` found.
"""
