-- Every index that looks at `state` is opened by each write of an outcome, and its condition is worked out for the row before
-- and after. These two cost a plain outcome less.

-- Without `state`, no outcome opens it. An ended row that would be due later is in it too: it gives a look in vain at its time.
DROP INDEX tasks_fair_later;
CREATE INDEX tasks_fair_later ON tasks (lane, kind, run_at) WHERE fair_key IS NOT NULL AND run_at IS NOT NULL;

-- The same rows as before, with the term first that spares an ended row all others.
DROP INDEX tasks_attention;
CREATE INDEX tasks_attention ON tasks (state)
    WHERE state >= 'queued'
      AND (cancel_requested <> 0
           OR kind >= x'' OR lane >= x'' OR run_at >= 1e14 OR expires_at >= 1e14
           OR (state = 'running' AND (lease IS NULL OR lease >= 9.3e18)));
