-- The closed lists of the system, and the policy of each mail type.
-- The enums are repeated in worker/job.py; a test compares the two.

-- Sorts: critical is claimed first.
CREATE TYPE email_priority AS ENUM ('critical', 'high', 'normal', 'low');

CREATE TYPE email_status AS ENUM (
    'pending',    -- waits for its time, its next try or evidence in a doubt
    'sent',       -- a provider took it
    'dead',       -- given up, with the reason in error_message
    'cancelled',  -- taken back by its owner before it was sent
    'suppressed', -- the recipient may not be written to
    'expired',    -- lost its sense before it could be sent
    'in_doubt'    -- may or may not have been sent; never sent again by itself
);

CREATE TYPE email_queue AS ENUM ('transactional', 'bulk');

-- What happens to a mail whose fate a crash or a lost connection left open.
CREATE TYPE email_guarantee AS ENUM (
    'at_least_once',   -- send again at once
    'at_most_once',    -- never send again by itself
    'effectively_once' -- wait for evidence, then send again
);

CREATE TYPE email_attempt_state AS ENUM (
    'sending',  -- the intent: it may be in the provider's hands
    'accepted', -- the provider took it
    'refused',  -- the provider refused it for good
    'failed',   -- definitely not taken; may be tried again
    'unknown',  -- handed over, and no answer came
    'not_sent'  -- nothing of its content was handed over
);

CREATE TYPE email_event AS ENUM (
    -- changes of status, each written in the transaction that makes the change
    'sent', 'retry_scheduled', 'snoozed', 'dead', 'cancelled', 'suppressed', 'expired', 'in_doubt', 'requeued',
    -- what became of a sent mail, as providers and recipients tell
    'delivered', 'deferred', 'bounced', 'opened', 'clicked', 'complained', 'unsubscribed'
);

CREATE TYPE email_category AS ENUM ('booking', 'payment', 'account', 'marketing', 'system');

CREATE TABLE email_types (
    type varchar(50) PRIMARY KEY,
    category email_category NOT NULL,
    queue email_queue NOT NULL,
    guarantee email_guarantee NOT NULL,
    priority email_priority NOT NULL,
    max_retries integer CHECK (max_retries BETWEEN 0 AND 100),
    opt_out boolean NOT NULL DEFAULT false,
    description text NOT NULL
);

COMMENT ON TABLE email_types IS 'One row per mail type: its policy. Change a row and new jobs follow it.';
COMMENT ON COLUMN email_types.queue IS 'transactional or bulk: bulk never holds the last slot of a worker.';
COMMENT ON COLUMN email_types.guarantee IS 'What happens after a crash in the middle of a send.';
COMMENT ON COLUMN email_types.max_retries IS 'NULL means EMAIL_MAX_RETRIES of the worker.';
COMMENT ON COLUMN email_types.opt_out IS 'Mails of this type carry List-Unsubscribe, and an opt-out applies to them.';

INSERT INTO email_types (type, category, queue, guarantee, priority, opt_out, description) VALUES
('booking-confirmation', 'booking', 'transactional', 'effectively_once', 'high', false, 'A booking is made.'),
('booking-cancellation', 'booking', 'transactional', 'effectively_once', 'high', false, 'A booking is cancelled.'),
('booking-reminder', 'booking', 'transactional', 'effectively_once', 'normal', false, 'An event comes near.'),
('payment-confirmation', 'payment', 'transactional', 'effectively_once', 'high', false, 'A payment arrived.'),
('payment-failed', 'payment', 'transactional', 'effectively_once', 'high', false, 'A payment failed.'),
('refund-confirmation', 'payment', 'transactional', 'effectively_once', 'high', false, 'Money goes back.'),
('welcome-email', 'account', 'transactional', 'at_least_once', 'normal', false, 'An account is new.'),
('password-reset', 'account', 'transactional', 'at_least_once', 'critical', false, 'A link to set a password.'),
('email-verification', 'account', 'transactional', 'at_least_once', 'critical', false, 'A link to verify an address.'),
('security-alert', 'account', 'transactional', 'at_least_once', 'critical', false, 'Something to look at, now.'),
('event-announcement', 'marketing', 'bulk', 'at_most_once', 'low', true, 'A new event.'),
('special-offer', 'marketing', 'bulk', 'at_most_once', 'low', true, 'An offer.'),
('newsletter', 'marketing', 'bulk', 'at_most_once', 'low', true, 'News at intervals.'),
('maintenance-notice', 'system', 'bulk', 'at_least_once', 'normal', false, 'The service will pause.'),
('system-update', 'system', 'bulk', 'at_least_once', 'low', false, 'The service changed.');
