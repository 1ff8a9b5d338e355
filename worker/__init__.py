"""An email worker: rows of the Postgres table `email_jobs` become delivered mail.

A `deliver` task (`tasks`, run by procrastinate) gives a slot of the process (`slots`, `drain`) to one queue for some
seconds. The slot delivers batch after batch (`delivery`). A batch is one transaction: due jobs are locked (`claim`),
rendered (`catalog`, `render`), their intents journaled on a second connection (`journal`), composed and sent
(`compose`, `providers`), and settled (`settle`) by the rules of `retry`. The locks are held across the send, so a dead
worker's jobs are free at once, and what was in a provider's hands is in the journal. `process` opens all this,
`watchdog` ends it when Postgres is lost, and `app` is what procrastinate imports.
"""
