-- Stands for the migrations up to 0035_resource_usage. Generated: make baseline

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

CREATE EXTENSION IF NOT EXISTS unaccent WITH SCHEMA public;

CREATE FUNCTION public.add_rollup_deltas() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO rollup_deltas (owner_id, kind, label, at, created, succeeded, failed, cancelled, begun, waited_ms, worked_ms, succeeded_ms, built_ms, items, pages, downloaded_bytes, artifact_bytes, uploaded_bytes, log_bytes) SELECT * FROM sums_of_fact(NEW);
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO rollup_deltas (owner_id, kind, label, at, created, succeeded, failed, cancelled, begun, waited_ms, worked_ms, succeeded_ms, built_ms, items, pages, downloaded_bytes, artifact_bytes, uploaded_bytes, log_bytes)
            SELECT owner_id, kind, label, at, -created, -succeeded, -failed, -cancelled, -begun, -waited_ms, -worked_ms, -succeeded_ms, -built_ms, -items, -pages, -downloaded_bytes, -artifact_bytes, -uploaded_bytes, -log_bytes FROM sums_of_fact(OLD);
        ELSE
            INSERT INTO rollup_deltas (owner_id, kind, label, at, created, succeeded, failed, cancelled, begun, waited_ms, worked_ms, succeeded_ms, built_ms, items, pages, downloaded_bytes, artifact_bytes, uploaded_bytes, log_bytes)
            SELECT owner_id, kind, label, at, sum(created), sum(succeeded), sum(failed), sum(cancelled), sum(begun), sum(waited_ms), sum(worked_ms), sum(succeeded_ms), sum(built_ms), sum(items), sum(pages), sum(downloaded_bytes), sum(artifact_bytes), sum(uploaded_bytes), sum(log_bytes) FROM (
                SELECT * FROM sums_of_fact(NEW)
                UNION ALL
                SELECT owner_id, kind, label, at, -created, -succeeded, -failed, -cancelled, -begun, -waited_ms, -worked_ms, -succeeded_ms, -built_ms, -items, -pages, -downloaded_bytes, -artifact_bytes, -uploaded_bytes, -log_bytes FROM sums_of_fact(OLD)
            ) AS both_states
            GROUP BY owner_id, kind, label, at
            HAVING (sum(created), sum(succeeded), sum(failed), sum(cancelled), sum(begun), sum(waited_ms), sum(worked_ms), sum(succeeded_ms), sum(built_ms), sum(items), sum(pages), sum(downloaded_bytes), sum(artifact_bytes), sum(uploaded_bytes), sum(log_bytes)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        END IF;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.begin_execution_fact() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        PERFORM refresh_execution_fact(NEW.execution_id);
        RETURN NULL;
    END $$;

CREATE FUNCTION public.follow_execution() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        PERFORM refresh_execution_fact(NEW.id);
        RETURN NULL;
    END $$;

CREATE FUNCTION public.follow_kind() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        PERFORM refresh_execution_fact(execution_id) FROM execution_facts
        WHERE execution_id = NEW.execution_id AND finished_at IS NOT NULL;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.follow_risks() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        PERFORM refresh_execution_fact(execution_id) FROM execution_facts
        WHERE execution_id IN (SELECT scan_id FROM touched) AND finished_at IS NOT NULL;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.forget_audit_events(older_than_days integer, at_most integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
    DECLARE
        forgotten int;
    BEGIN
        DELETE FROM audit_events WHERE id IN (
            SELECT id FROM audit_events
            WHERE occurred_at < now() - make_interval(days => greatest(older_than_days, 30)) AND action <> 'installTool'
            ORDER BY id LIMIT at_most
        );
        GET DIAGNOSTICS forgotten = ROW_COUNT;
        RETURN forgotten;
    END $$;

CREATE FUNCTION public.keep_audit_event() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    DECLARE
        callers text;
    BEGIN
        IF TG_OP = 'UPDATE'
            AND NEW.ip IS NULL AND NEW.user_agent IS NULL AND OLD.details @> NEW.details
            AND (to_jsonb(NEW) - '{ip,user_agent,details}'::text[]) = (to_jsonb(OLD) - '{ip,user_agent,details}'::text[])
        THEN
            RETURN NEW;
        END IF;
        GET DIAGNOSTICS callers = PG_CONTEXT;
        IF TG_OP = 'DELETE' AND OLD.occurred_at < now() - interval '30 days'
            AND callers LIKE '%forget_audit_events(integer,integer)%'
        THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'restrict_violation';
    END $$;

CREATE FUNCTION public.keep_final_status() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        RAISE EXCEPTION 'execution % is final', OLD.id USING ERRCODE = 'restrict_violation';
    END $$;

CREATE FUNCTION public.product_words(text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
        SELECT strip(
            to_tsvector('pg_catalog.simple', form) || to_tsvector('pg_catalog.spanish', form)
            || to_tsvector('pg_catalog.english', form)
        )
        FROM (
            SELECT regexp_replace(
                lower(public.unaccent('public.unaccent'::regdictionary, $1)), '[!-/:-@\[-`{-~]+', ' ', 'g'
            ) AS form
        ) AS plain
    $_$;

CREATE FUNCTION public.quarter_hour(timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
        SELECT date_bin('15 minutes', $1, '2000-01-01 00:00:00+00'::timestamptz)
    $_$;

CREATE FUNCTION public.refresh_execution_fact(refreshed uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$
    BEGIN
        INSERT INTO execution_facts (execution_id, owner_id, kind, target_id, queued_at, finished_at, outcome, waited_ms, worked_ms, built_ms, items, pages, downloaded_bytes, artifact_bytes, uploaded_bytes, log_bytes, risks) 
SELECT e.id, e.owner_id, e.kind, coalesce(d.project_id, r.tool_id), e.queued_at, e.finished_at,
       CASE WHEN ended THEN e.status END,
       CASE WHEN ended THEN round(extract(epoch FROM e.started_at - e.queued_at) * 1000)::bigint END,
       CASE WHEN ended THEN round(extract(epoch FROM e.finished_at - e.started_at) * 1000)::bigint END,
       CASE WHEN ended THEN round(d.build_seconds * 1000)::bigint END,
       CASE WHEN ended THEN coalesce(r.items_scraped, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(r.pages_crawled, o.pages_read, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(r.bytes_downloaded, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(d.artifact_size, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(d.uploaded_bytes, 0) ELSE 0 END,
       CASE WHEN ended THEN e.log_bytes ELSE 0 END,
       CASE WHEN ended AND s.execution_id IS NOT NULL THEN (
           SELECT jsonb_object_agg(label, risks) FROM (
               SELECT severity || ':' || category AS label, count(*) AS risks FROM scan_risks
               WHERE scan_id = e.id GROUP BY severity, category
           ) AS counted
       ) END
FROM executions e
CROSS JOIN LATERAL (SELECT e.finished_at IS NOT NULL AS ended) AS state
LEFT JOIN deployments d ON d.execution_id = e.id
LEFT JOIN job_runs r ON r.execution_id = e.id
LEFT JOIN scans s ON s.execution_id = e.id
LEFT JOIN ocr_jobs o ON o.execution_id = e.id
 WHERE e.id = refreshed
        ON CONFLICT (execution_id) DO UPDATE SET owner_id = excluded.owner_id, kind = excluded.kind, target_id = excluded.target_id, queued_at = excluded.queued_at, finished_at = excluded.finished_at, outcome = excluded.outcome, waited_ms = excluded.waited_ms, worked_ms = excluded.worked_ms, built_ms = excluded.built_ms, items = excluded.items, pages = excluded.pages, downloaded_bytes = excluded.downloaded_bytes, artifact_bytes = excluded.artifact_bytes, uploaded_bytes = excluded.uploaded_bytes, log_bytes = excluded.log_bytes, risks = excluded.risks
        WHERE (execution_facts.owner_id, execution_facts.kind, execution_facts.target_id, execution_facts.queued_at, execution_facts.finished_at, execution_facts.outcome, execution_facts.waited_ms, execution_facts.worked_ms, execution_facts.built_ms, execution_facts.items, execution_facts.pages, execution_facts.downloaded_bytes, execution_facts.artifact_bytes, execution_facts.uploaded_bytes, execution_facts.log_bytes, execution_facts.risks)
            IS DISTINCT FROM (excluded.owner_id, excluded.kind, excluded.target_id, excluded.queued_at, excluded.finished_at, excluded.outcome, excluded.waited_ms, excluded.worked_ms, excluded.built_ms, excluded.items, excluded.pages, excluded.downloaded_bytes, excluded.artifact_bytes, excluded.uploaded_bytes, excluded.log_bytes, excluded.risks);
    END $$;

CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$;

CREATE FUNCTION public.search_form(text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $_$
        SELECT lower(public.unaccent('public.unaccent'::regdictionary, $1))
    $_$;

CREATE TABLE public.execution_facts (
    owner_id uuid NOT NULL,
    kind character varying(16) NOT NULL,
    target_id uuid,
    queued_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    outcome character varying(16),
    waited_ms bigint,
    worked_ms bigint,
    built_ms bigint,
    items bigint NOT NULL,
    pages bigint NOT NULL,
    downloaded_bytes bigint NOT NULL,
    artifact_bytes bigint NOT NULL,
    uploaded_bytes bigint NOT NULL,
    log_bytes bigint NOT NULL,
    risks jsonb,
    execution_id uuid NOT NULL
);

COMMENT ON TABLE public.execution_facts IS 'What counts of one execution. `outcome` is its final status; `target_id` its project or tool.';

COMMENT ON COLUMN public.execution_facts.outcome IS 'QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nCANCELLED: CANCELLED';

CREATE FUNCTION public.sums_of_fact(fact public.execution_facts) RETURNS TABLE(owner_id uuid, kind character varying, label character varying, at timestamp with time zone, created bigint, succeeded bigint, failed bigint, cancelled bigint, begun bigint, waited_ms bigint, worked_ms bigint, succeeded_ms bigint, built_ms bigint, items bigint, pages bigint, downloaded_bytes bigint, artifact_bytes bigint, uploaded_bytes bigint, log_bytes bigint)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
    BEGIN
        RETURN QUERY 
SELECT fact.owner_id, fact.kind, ''::varchar AS label, quarter_hour(fact.queued_at) AS at,
       1::bigint AS created, 0::bigint AS succeeded, 0::bigint AS failed, 0::bigint AS cancelled, 0::bigint AS begun, 0::bigint AS waited_ms, 0::bigint AS worked_ms, 0::bigint AS succeeded_ms, 0::bigint AS built_ms, 0::bigint AS items, 0::bigint AS pages, 0::bigint AS downloaded_bytes, 0::bigint AS artifact_bytes, 0::bigint AS uploaded_bytes, 0::bigint AS log_bytes
UNION ALL
SELECT fact.owner_id, fact.kind, ''::varchar, quarter_hour(fact.finished_at),
       0::bigint, (fact.outcome = 'SUCCEEDED')::int::bigint, (fact.outcome = 'FAILED')::int::bigint,
       (fact.outcome = 'CANCELLED')::int::bigint, (fact.worked_ms IS NOT NULL)::int::bigint,
       coalesce(fact.waited_ms, 0), coalesce(fact.worked_ms, 0),
       CASE WHEN fact.outcome = 'SUCCEEDED' THEN coalesce(fact.worked_ms, 0) ELSE 0 END,
       coalesce(fact.built_ms, 0), fact.items, fact.pages, fact.downloaded_bytes, fact.artifact_bytes,
       fact.uploaded_bytes, fact.log_bytes
WHERE fact.finished_at IS NOT NULL
UNION ALL
SELECT fact.owner_id, 'RISK'::varchar, risk.key::varchar, quarter_hour(fact.finished_at),
       risk.value::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint
FROM jsonb_each_text(fact.risks) AS risk WHERE fact.finished_at IS NOT NULL AND fact.risks IS NOT NULL
;
    END $$;

CREATE FUNCTION public.tell_deployment_status() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)
        VALUES ('deployment.status', NEW.id || ':' || NEW.attempt || ':' || NEW.status,
                jsonb_build_object('executionId', NEW.id, 'status', NEW.status, 'attempt', NEW.attempt),
                now(), 0, now())
        ON CONFLICT (topic, key) DO NOTHING;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.tell_execution_news() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
    BEGIN
        IF (NEW.kind = 'CRAWL' AND NEW.status IN ('SUCCEEDED', 'FAILED')) OR EXISTS (
            SELECT 1 FROM webhook_endpoints WHERE owner_id = NEW.owner_id AND is_active
        ) THEN
            INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at)
            VALUES ('execution.news', NEW.id || ':' || NEW.attempt || ':' || NEW.status,
                    jsonb_build_object('executionId', NEW.id, 'ownerId', NEW.owner_id, 'status', NEW.status,
                                       'at', clock_timestamp()),
                    now(), 0, now())
            ON CONFLICT (topic, key) DO NOTHING;
        END IF;
        RETURN NULL;
    END $$;

CREATE TABLE public.access_tokens (
    id uuid NOT NULL,
    name character varying(120) NOT NULL,
    token_hash character varying(64) NOT NULL,
    last_four character varying(4) NOT NULL,
    scope character varying(16) NOT NULL,
    project_ids jsonb,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    last_used_ip character varying(45),
    revoked_at timestamp with time zone,
    user_id uuid NOT NULL,
    CONSTRAINT access_tokens_scope_check CHECK (((scope)::text = ANY (ARRAY[('READ'::character varying)::text, ('WRITE'::character varying)::text, ('ADMIN'::character varying)::text])))
);

COMMENT ON TABLE public.access_tokens IS 'A token for scripts and CI. `project_ids` null means all of its owner''s projects.';

COMMENT ON COLUMN public.access_tokens.scope IS 'READ: READ\nWRITE: WRITE\nADMIN: ADMIN';

CREATE TABLE public.audit_events (
    id uuid NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    actor_id uuid,
    session_id uuid,
    action character varying(64) NOT NULL,
    outcome character varying(32) NOT NULL,
    target_type character varying(32),
    target_id uuid,
    ip character varying(45),
    user_agent character varying(512),
    request_id character varying(64),
    details jsonb NOT NULL,
    access_token_id uuid
);

COMMENT ON TABLE public.audit_events IS 'One act of one actor. `outcome` is `success` or the error code that refused it.';

CREATE TABLE public.candidate_acceptances (
    id uuid NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    min_confidence double precision,
    changes jsonb NOT NULL,
    undone_at timestamp with time zone,
    accepted_by_id uuid,
    job_id uuid NOT NULL
);

COMMENT ON TABLE public.candidate_acceptances IS 'One act of accepting, of one or many candidates; `changes` is what undoing it needs.';

CREATE TABLE public.crawl_days (
    id bigint NOT NULL,
    day date NOT NULL,
    pages bigint NOT NULL,
    owner_id uuid NOT NULL
);

COMMENT ON TABLE public.crawl_days IS 'How many pages a user''s crawls fetched on one day.';

CREATE SEQUENCE public.crawl_days_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.crawl_days_id_seq OWNED BY public.crawl_days.id;

CREATE TABLE public.crawl_requests (
    id bigint NOT NULL,
    fingerprint bytea NOT NULL,
    url text NOT NULL,
    payload jsonb NOT NULL,
    depth integer NOT NULL,
    rank integer NOT NULL,
    state character varying(16) NOT NULL,
    starts smallint NOT NULL,
    failure_reason character varying(32),
    failure_detail text,
    dataset_id uuid NOT NULL
);

COMMENT ON TABLE public.crawl_requests IS 'One request of a dataset''s frontier: pending, leased to the crawler, done or failed. Low `rank` goes first.';

COMMENT ON COLUMN public.crawl_requests.state IS 'PENDING: PENDING\nLEASED: LEASED\nDONE: DONE\nFAILED: FAILED';

CREATE SEQUENCE public.crawl_requests_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.crawl_requests_id_seq OWNED BY public.crawl_requests.id;

CREATE TABLE public.deploy_hooks (
    id uuid NOT NULL,
    name character varying(120) NOT NULL,
    branch character varying(255) NOT NULL,
    environment character varying(16) NOT NULL,
    token_hash character varying(64) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone,
    project_id uuid NOT NULL
);

COMMENT ON TABLE public.deploy_hooks IS 'A secret address that starts a deployment of one branch; only a hash of its token is kept.';

COMMENT ON COLUMN public.deploy_hooks.environment IS 'PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW';

CREATE TABLE public.deployment_files (
    id bigint NOT NULL,
    path text NOT NULL,
    content_type character varying(120) NOT NULL,
    blob_id bigint NOT NULL,
    deployment_id uuid NOT NULL
);

COMMENT ON TABLE public.deployment_files IS 'A path of a deployment; `path` is relative, with slashes, as it stands in URLs after decoding.';

CREATE SEQUENCE public.deployment_files_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.deployment_files_id_seq OWNED BY public.deployment_files.id;

CREATE TABLE public.deployments (
    number integer NOT NULL,
    environment character varying(16) NOT NULL,
    trigger character varying(16) NOT NULL,
    branch character varying(255) NOT NULL,
    commit_hash character varying(64),
    commit_message text,
    commit_author character varying(255),
    committed_at timestamp with time zone,
    pull_request integer,
    is_fork boolean NOT NULL,
    clone_url character varying(1024) NOT NULL,
    configuration jsonb NOT NULL,
    sealed_environment text,
    site_key character varying(16) NOT NULL,
    alias character varying(63) NOT NULL,
    framework character varying(32),
    routing jsonb,
    file_count integer,
    artifact_size bigint,
    uploaded_bytes bigint,
    build_seconds double precision,
    redeploy_of_id uuid,
    superseded_by_id uuid,
    github_deployment_id bigint,
    project_id uuid NOT NULL,
    execution_id uuid NOT NULL,
    CONSTRAINT deployments_environment_check CHECK (((environment)::text = ANY (ARRAY[('PRODUCTION'::character varying)::text, ('PREVIEW'::character varying)::text]))),
    CONSTRAINT deployments_fork_check CHECK (((NOT is_fork) OR ((environment)::text = 'PREVIEW'::text))),
    CONSTRAINT deployments_number_check CHECK ((number > 0)),
    CONSTRAINT deployments_site_key_check CHECK (((site_key)::text ~ '^[0-9a-z]{16}$'::text))
);

COMMENT ON TABLE public.deployments IS 'What a build adds to its execution.';

COMMENT ON COLUMN public.deployments.environment IS 'PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW';

COMMENT ON COLUMN public.deployments.trigger IS 'MANUAL: MANUAL\nPUSH: PUSH\nPULL_REQUEST: PULL_REQUEST\nREDEPLOY: REDEPLOY\nROLLBACK: ROLLBACK\nDEPLOY_HOOK: DEPLOY_HOOK\nAPI: API';

CREATE TABLE public.document_pages (
    id uuid NOT NULL,
    number integer NOT NULL,
    source character varying(16) NOT NULL,
    width double precision NOT NULL,
    height double precision NOT NULL,
    rotation double precision NOT NULL,
    confidence double precision,
    text text NOT NULL,
    words jsonb NOT NULL,
    job_id uuid NOT NULL,
    search_words tsvector GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, public.search_form("left"(text, 200000)))) STORED,
    CONSTRAINT document_pages_number_check CHECK ((number > 0))
);

COMMENT ON TABLE public.document_pages IS 'A page as it was read. `words` is a list of [text, left, top, right, bottom, confidence], in parts of the page.';

COMMENT ON COLUMN public.document_pages.source IS 'TEXT_LAYER: TEXT_LAYER\nOCR: OCR';

CREATE TABLE public.environment_variables (
    id uuid NOT NULL,
    environment character varying(16) NOT NULL,
    name character varying(128) NOT NULL,
    sealed_value text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    project_id uuid NOT NULL,
    CONSTRAINT environment_variables_environment_check CHECK (((environment)::text = ANY (ARRAY[('PRODUCTION'::character varying)::text, ('PREVIEW'::character varying)::text]))),
    CONSTRAINT environment_variables_name_check CHECK (((name)::text ~ '^[A-Za-z_][A-Za-z0-9_]*$'::text))
);

COMMENT ON TABLE public.environment_variables IS 'A variable of builds; `sealed_value` opens only in its own row.';

COMMENT ON COLUMN public.environment_variables.environment IS 'PRODUCTION: PRODUCTION\nPREVIEW: PREVIEW';

CREATE TABLE public.execution_events (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    status character varying(16) NOT NULL,
    stage character varying(32),
    attempt integer NOT NULL,
    user_id uuid,
    worker character varying(64),
    execution_id uuid NOT NULL
);

COMMENT ON TABLE public.execution_events IS 'One line of an execution''s history: append-only, the source of durations and analytics.';

COMMENT ON COLUMN public.execution_events.status IS 'QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nCANCELLED: CANCELLED';

CREATE SEQUENCE public.execution_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.execution_events_id_seq OWNED BY public.execution_events.id;

CREATE TABLE public.executions (
    id uuid NOT NULL,
    kind character varying(16) NOT NULL,
    status character varying(16) NOT NULL,
    stage character varying(32),
    progress smallint NOT NULL,
    attempt integer NOT NULL,
    lost_workers smallint NOT NULL,
    max_attempts smallint NOT NULL,
    timeout_seconds double precision NOT NULL,
    worked_seconds double precision NOT NULL,
    worker character varying(64),
    lease_until timestamp with time zone,
    claimed_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    queued_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    failure_code character varying(32),
    failure_message text,
    failure_stage character varying(32),
    failure_exit_code integer,
    failure_signal smallint,
    failure_retryable boolean NOT NULL,
    log_sequence bigint NOT NULL,
    log_bytes bigint NOT NULL,
    log_object jsonb,
    log_compaction_after timestamp with time zone,
    owner_id uuid NOT NULL,
    requested_by_id uuid,
    turn_key character varying(200),
    cpu_milliseconds bigint,
    peak_memory_bytes bigint,
    CONSTRAINT executions_failure_check CHECK ((((status)::text = 'FAILED'::text) = (failure_code IS NOT NULL))),
    CONSTRAINT executions_finish_check CHECK ((((status)::text = ANY (ARRAY[('SUCCEEDED'::character varying)::text, ('FAILED'::character varying)::text, ('CANCELLED'::character varying)::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT executions_lease_check CHECK ((((status)::text = 'RUNNING'::text) = ((worker IS NOT NULL) AND (lease_until IS NOT NULL)))),
    CONSTRAINT executions_progress_check CHECK (((progress >= 0) AND (progress <= 100))),
    CONSTRAINT executions_status_check CHECK (((status)::text = ANY (ARRAY[('QUEUED'::character varying)::text, ('RUNNING'::character varying)::text, ('SUCCEEDED'::character varying)::text, ('FAILED'::character varying)::text, ('CANCELLED'::character varying)::text]))),
    CONSTRAINT executions_usage_check CHECK (((cpu_milliseconds >= 0) AND (peak_memory_bytes >= 0)))
)
WITH (fillfactor='70');

COMMENT ON TABLE public.executions IS 'One piece of work; what its kind adds is in the kind''s own table under the same id.';

COMMENT ON COLUMN public.executions.status IS 'QUEUED: QUEUED\nRUNNING: RUNNING\nSUCCEEDED: SUCCEEDED\nFAILED: FAILED\nCANCELLED: CANCELLED';

COMMENT ON COLUMN public.executions.failure_code IS 'TIMED_OUT: TIMED_OUT\nWORKER_LOST: WORKER_LOST\nOUT_OF_MEMORY: OUT_OF_MEMORY\nCLONE_FAILED: CLONE_FAILED\nINSTALL_FAILED: INSTALL_FAILED\nCOMMAND_FAILED: COMMAND_FAILED\nOUTPUT_MISSING: OUTPUT_MISSING\nOUTPUT_TOO_LARGE: OUTPUT_TOO_LARGE\nLOG_LIMIT_EXCEEDED: LOG_LIMIT_EXCEEDED\nUPLOAD_FAILED: UPLOAD_FAILED\nSERVICE_UNAVAILABLE: SERVICE_UNAVAILABLE\nINVALID_INPUT: INVALID_INPUT\nBLOCKED_URL: BLOCKED_URL\nSTART_ERROR: START_ERROR\nINTERNAL: INTERNAL';

CREATE TABLE public.idempotency_keys (
    id bigint NOT NULL,
    operation character varying(64) NOT NULL,
    key character varying(255) NOT NULL,
    request_hash character varying(64) NOT NULL,
    target_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL
);

COMMENT ON TABLE public.idempotency_keys IS 'What a key of an owner led to.';

CREATE SEQUENCE public.idempotency_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.idempotency_keys_id_seq OWNED BY public.idempotency_keys.id;

CREATE TABLE public.identities (
    id uuid NOT NULL,
    provider character varying(16) NOT NULL,
    subject character varying(255) NOT NULL,
    email character varying(254) NOT NULL,
    login character varying(120) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone,
    user_id uuid NOT NULL
);

COMMENT ON TABLE public.identities IS 'An account at a provider that opens an account here. `subject` is its id there, which stays when it is renamed.';

COMMENT ON COLUMN public.identities.provider IS 'GITHUB: GITHUB\nGOOGLE: GOOGLE';

CREATE TABLE public.incident_updates (
    id uuid NOT NULL,
    number integer NOT NULL,
    state character varying(16) NOT NULL,
    message text NOT NULL,
    is_automatic boolean NOT NULL,
    at timestamp with time zone NOT NULL,
    incident_id uuid NOT NULL
);

COMMENT ON TABLE public.incident_updates IS 'What was said of an incident at a moment, and the state from then on. `number` counts from 1 in its incident.';

COMMENT ON COLUMN public.incident_updates.state IS 'INVESTIGATING: INVESTIGATING\nIDENTIFIED: IDENTIFIED\nMONITORING: MONITORING\nRESOLVED: RESOLVED';

CREATE TABLE public.incidents (
    id uuid NOT NULL,
    title character varying(200) NOT NULL,
    state character varying(16) NOT NULL,
    impact character varying(16) NOT NULL,
    services text[] NOT NULL,
    automatic_service character varying(16),
    taken_over_at timestamp with time zone,
    started_at timestamp with time zone NOT NULL,
    resolved_at timestamp with time zone,
    updated_at timestamp with time zone NOT NULL,
    update_count integer NOT NULL,
    CONSTRAINT incidents_end_check CHECK ((((state)::text = 'RESOLVED'::text) = (resolved_at IS NOT NULL))),
    CONSTRAINT incidents_taken_check CHECK (((taken_over_at IS NULL) OR (automatic_service IS NOT NULL)))
);

COMMENT ON TABLE public.incidents IS 'Something that users notice. `automatic_service` is the service whose probes opened it.';

COMMENT ON COLUMN public.incidents.state IS 'INVESTIGATING: INVESTIGATING\nIDENTIFIED: IDENTIFIED\nMONITORING: MONITORING\nRESOLVED: RESOLVED';

COMMENT ON COLUMN public.incidents.impact IS 'MINOR: MINOR\nMAJOR: MAJOR\nCRITICAL: CRITICAL';

COMMENT ON COLUMN public.incidents.automatic_service IS 'API: API\nDATABASE: DATABASE\nQUEUE: QUEUE\nSTORAGE: STORAGE\nBUILDS: BUILDS\nAI_SERVICE: AI_SERVICE\nMAIL: MAIL';

CREATE TABLE public.item_exports (
    format character varying(16) NOT NULL,
    options jsonb NOT NULL,
    filename character varying(160) NOT NULL,
    content_type character varying(120) NOT NULL,
    row_count bigint,
    size bigint,
    sha256 character varying(64),
    key character varying(512),
    expires_at timestamp with time zone,
    run_id uuid NOT NULL,
    execution_id uuid NOT NULL,
    CONSTRAINT item_exports_file_check CHECK ((num_nonnulls(row_count, size, sha256, expires_at) = ANY (ARRAY[0, 4]))),
    CONSTRAINT item_exports_format_check CHECK (((format)::text = ANY (ARRAY[('JSONL'::character varying)::text, ('CSV'::character varying)::text, ('XLSX'::character varying)::text, ('PARQUET'::character varying)::text]))),
    CONSTRAINT item_exports_key_check CHECK (((key IS NULL) OR (size IS NOT NULL)))
);

COMMENT ON TABLE public.item_exports IS 'What an export adds to its execution: what was asked for, and what came of it.';

COMMENT ON COLUMN public.item_exports.format IS 'JSONL: JSONL\nCSV: CSV\nXLSX: XLSX\nPARQUET: PARQUET';

CREATE TABLE public.item_versions (
    id bigint NOT NULL,
    identity bytea NOT NULL,
    content bytea NOT NULL,
    source_id text,
    url text NOT NULL,
    seen_in uuid NOT NULL,
    gone_in uuid,
    job_id uuid NOT NULL
);

COMMENT ON TABLE public.item_versions IS 'What a job last stored under an identity, as a hash.';

CREATE SEQUENCE public.item_versions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.item_versions_id_seq OWNED BY public.item_versions.id;

CREATE TABLE public.items (
    id bigint NOT NULL,
    run_id uuid NOT NULL,
    key character varying(128) NOT NULL,
    url text NOT NULL,
    data jsonb NOT NULL,
    scraped_at timestamp with time zone NOT NULL,
    dataset_id uuid NOT NULL
);

COMMENT ON TABLE public.items IS 'One item of a dataset. `key` comes from the page, the callback and the place on the page that made it.';

CREATE SEQUENCE public.items_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.items_id_seq OWNED BY public.items.id;

CREATE TABLE public.job_runs (
    spider character varying(64) NOT NULL,
    input jsonb NOT NULL,
    limits jsonb NOT NULL,
    trigger character varying(16) NOT NULL,
    retry_of_id uuid,
    is_seeded boolean NOT NULL,
    items_scraped bigint NOT NULL,
    pages_crawled bigint NOT NULL,
    errors_count bigint NOT NULL,
    bytes_downloaded bigint NOT NULL,
    requests_blocked bigint NOT NULL,
    requests_robots bigint NOT NULL,
    requests_throttled bigint NOT NULL,
    close_reason character varying(32),
    dataset_id uuid NOT NULL,
    job_id uuid NOT NULL,
    tool_id uuid NOT NULL,
    resumed_from_id uuid,
    execution_id uuid NOT NULL,
    expected_items bigint,
    is_incomplete boolean DEFAULT false NOT NULL,
    items_rejected bigint DEFAULT 0 NOT NULL,
    items_unchanged bigint DEFAULT 0 NOT NULL,
    only_changes boolean DEFAULT false NOT NULL,
    requests_dropped bigint DEFAULT 0 NOT NULL,
    saves_products boolean DEFAULT false NOT NULL,
    items_gone bigint,
    items_skipped bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='70');

COMMENT ON TABLE public.job_runs IS 'What a crawl adds to its execution: a snapshot of the input, limits, counters and the reason it closed.';

COMMENT ON COLUMN public.job_runs.trigger IS 'API: API\nRETRY: RETRY\nRESUME: RESUME\nSCHEDULE: SCHEDULE';

COMMENT ON COLUMN public.job_runs.close_reason IS 'FINISHED: FINISHED\nSTOPPED_BY_USER: STOPPED_BY_USER\nITEM_LIMIT: ITEM_LIMIT\nPAGE_LIMIT: PAGE_LIMIT\nBYTE_LIMIT: BYTE_LIMIT\nDAILY_PAGE_LIMIT: DAILY_PAGE_LIMIT\nTIME_LIMIT: TIME_LIMIT\nMEMORY_LIMIT: MEMORY_LIMIT\nSTALLED: STALLED\nSTART_ERROR: START_ERROR';

CREATE TABLE public.job_schedules (
    cron_expression character varying(100) NOT NULL,
    time_zone character varying(64) NOT NULL,
    is_paused boolean NOT NULL,
    pause_reason character varying(32),
    overlap_policy character varying(16) NOT NULL,
    missed_run_policy character varying(16) NOT NULL,
    limits jsonb NOT NULL,
    next_run_at timestamp with time zone,
    last_run_at timestamp with time zone,
    waiting_tick_at timestamp with time zone,
    inactive_tool_ticks smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    job_id uuid NOT NULL,
    CONSTRAINT job_schedules_pause_check CHECK (((NOT is_paused) OR ((next_run_at IS NULL) AND (waiting_tick_at IS NULL)))),
    CONSTRAINT job_schedules_reason_check CHECK ((is_paused OR (pause_reason IS NULL)))
);

COMMENT ON TABLE public.job_schedules IS 'When a job runs by itself.';

COMMENT ON COLUMN public.job_schedules.pause_reason IS 'STILL_RUNNING: STILL_RUNNING\nSCHEDULE_CHANGED: SCHEDULE_CHANGED\nTOOL_INACTIVE: TOOL_INACTIVE\nOWNER_INACTIVE: OWNER_INACTIVE\nQUEUE_FULL: QUEUE_FULL\nDAILY_LIMIT: DAILY_LIMIT';

COMMENT ON COLUMN public.job_schedules.overlap_policy IS 'SKIP: SKIP\nQUEUE: QUEUE';

COMMENT ON COLUMN public.job_schedules.missed_run_policy IS 'SKIP: SKIP\nRUN_ONCE: RUN_ONCE';

CREATE TABLE public.jobs (
    id uuid NOT NULL,
    name character varying(120) NOT NULL,
    input jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL,
    tool_id uuid NOT NULL,
    alarm_percent smallint DEFAULT 50 NOT NULL,
    only_changes boolean DEFAULT false NOT NULL,
    saves_products boolean DEFAULT false NOT NULL,
    CONSTRAINT jobs_alarm_check CHECK (((alarm_percent >= 0) AND (alarm_percent <= 100)))
);

COMMENT ON TABLE public.jobs IS 'A tool with an input that belongs to a user.';

CREATE TABLE public.log_chunks (
    id bigint NOT NULL,
    first_sequence bigint NOT NULL,
    line_count integer NOT NULL,
    levels smallint NOT NULL,
    body text NOT NULL,
    execution_id uuid NOT NULL,
    CONSTRAINT log_chunks_lines_check CHECK (((line_count > 0) AND (first_sequence > 0)))
);

COMMENT ON TABLE public.log_chunks IS 'Consecutive log lines of an execution as one row; `body` is one JSON array per line.';

CREATE SEQUENCE public.log_chunks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.log_chunks_id_seq OWNED BY public.log_chunks.id;

CREATE TABLE public.media (
    id uuid NOT NULL,
    status character varying(16) NOT NULL,
    filename character varying(255) NOT NULL,
    content_type character varying(127) NOT NULL,
    size bigint NOT NULL,
    sha256 character varying(64) NOT NULL,
    kind character varying(16),
    width integer,
    height integer,
    pages integer,
    duration_seconds double precision,
    has_thumbnail boolean NOT NULL,
    rejection character varying(500),
    created_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    upload_until timestamp with time zone,
    owner_id uuid NOT NULL,
    CONSTRAINT media_kind_check CHECK ((((status)::text = 'READY'::text) = (kind IS NOT NULL))),
    CONSTRAINT media_size_check CHECK ((size >= 0)),
    CONSTRAINT media_status_check CHECK (((status)::text = ANY (ARRAY[('PENDING'::character varying)::text, ('READY'::character varying)::text, ('REJECTED'::character varying)::text]))),
    CONSTRAINT media_upload_check CHECK ((((status)::text = 'PENDING'::text) = (upload_until IS NOT NULL)))
);

COMMENT ON TABLE public.media IS 'A file of a user. `sha256` and `size` are what was promised and, once READY, what is there.';

COMMENT ON COLUMN public.media.status IS 'PENDING: PENDING\nREADY: READY\nREJECTED: REJECTED';

COMMENT ON COLUMN public.media.kind IS 'IMAGE: IMAGE\nPDF: PDF\nVIDEO: VIDEO';

CREATE TABLE public.notifications (
    id uuid NOT NULL,
    key character varying(120) NOT NULL,
    kind character varying(32) NOT NULL,
    title character varying(200) NOT NULL,
    body text NOT NULL,
    url character varying(1024),
    execution_id uuid,
    created_at timestamp with time zone NOT NULL,
    read_at timestamp with time zone,
    user_id uuid NOT NULL
);

COMMENT ON TABLE public.notifications IS 'Something a user is told in the app. `key` makes it unique: an event that is handled twice tells once.';

COMMENT ON COLUMN public.notifications.kind IS 'DEPLOYMENT_SUCCEEDED: DEPLOYMENT_SUCCEEDED\nDEPLOYMENT_FAILED: DEPLOYMENT_FAILED\nJOB_SUCCEEDED: JOB_SUCCEEDED\nJOB_FAILED: JOB_FAILED\nJOB_INCOMPLETE: JOB_INCOMPLETE\nSCHEDULE_PAUSED: SCHEDULE_PAUSED\nWEBHOOK_DISABLED: WEBHOOK_DISABLED';

CREATE TABLE public.oauth_connections (
    id uuid NOT NULL,
    provider character varying(16) NOT NULL,
    subject character varying(64) NOT NULL,
    login character varying(120) NOT NULL,
    avatar_url character varying(1024),
    scopes character varying(500) NOT NULL,
    sealed_token text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    refused_at timestamp with time zone,
    user_id uuid NOT NULL
);

COMMENT ON TABLE public.oauth_connections IS 'An account at a provider. `subject` is its id there, which stays when it is renamed.';

COMMENT ON COLUMN public.oauth_connections.provider IS 'GITHUB: GITHUB';

CREATE TABLE public.ocr_jobs (
    filename character varying(255) NOT NULL,
    languages jsonb NOT NULL,
    force_ocr boolean NOT NULL,
    default_currency character varying(3),
    batch_id uuid,
    page_count integer,
    pages_read integer NOT NULL,
    confidence double precision,
    candidate_count integer NOT NULL,
    engine character varying(64),
    media_id uuid,
    execution_id uuid NOT NULL
);

COMMENT ON TABLE public.ocr_jobs IS 'What reading a document adds to its execution. `filename` stays when the medium goes.';

CREATE TABLE public.one_time_links (
    id uuid NOT NULL,
    purpose character varying(16) NOT NULL,
    token_hash character varying(64) NOT NULL,
    email character varying(254) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    user_id uuid NOT NULL
);

COMMENT ON TABLE public.one_time_links IS 'A link in a letter: works once, for an hour. `email` is the address that it proves.';

COMMENT ON COLUMN public.one_time_links.purpose IS 'VERIFY_EMAIL: VERIFY_EMAIL\nRESET_PASSWORD: RESET_PASSWORD';

CREATE TABLE public.outbox_messages (
    id bigint NOT NULL,
    topic character varying(64) NOT NULL,
    key character varying(200) NOT NULL,
    payload jsonb NOT NULL,
    due_at timestamp with time zone NOT NULL,
    attempts integer NOT NULL,
    last_error text,
    created_at timestamp with time zone NOT NULL,
    given_up_at timestamp with time zone
);

COMMENT ON TABLE public.outbox_messages IS 'Something to tell. `due_at` is also the lease of whoever is telling it; `given_up_at` ends the tries.';

CREATE SEQUENCE public.outbox_messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.outbox_messages_id_seq OWNED BY public.outbox_messages.id;

CREATE TABLE public.output_files (
    id uuid NOT NULL,
    format character varying(16) NOT NULL,
    key character varying(512) NOT NULL,
    filename character varying(160) NOT NULL,
    content_type character varying(120) NOT NULL,
    size bigint NOT NULL,
    sha256 character varying(64) NOT NULL,
    row_count bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    run_id uuid NOT NULL,
    CONSTRAINT output_files_size_check CHECK (((size >= 0) AND (row_count >= 0)))
);

COMMENT ON TABLE public.output_files IS 'A file made of a run''s items, kept in storage.';

COMMENT ON COLUMN public.output_files.format IS 'JSONL: JSONL\nCSV: CSV\nXLSX: XLSX';

CREATE TABLE public.preferences (
    theme character varying(16) NOT NULL,
    email_notifications boolean NOT NULL,
    deployment_success boolean NOT NULL,
    deployment_failure boolean NOT NULL,
    job_notifications boolean NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    user_id uuid NOT NULL,
    CONSTRAINT preferences_theme_check CHECK (((theme)::text = ANY (ARRAY[('LIGHT'::character varying)::text, ('DARK'::character varying)::text, ('SYSTEM'::character varying)::text])))
);

COMMENT ON TABLE public.preferences IS 'What a user wants.';

COMMENT ON COLUMN public.preferences.theme IS 'LIGHT: LIGHT\nDARK: DARK\nSYSTEM: SYSTEM';

CREATE UNLOGGED TABLE public.processes (
    id uuid NOT NULL,
    name character varying(100) NOT NULL,
    role character varying(16) NOT NULL,
    host character varying(255) NOT NULL,
    pid integer NOT NULL,
    version character varying(64) NOT NULL,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    kinds jsonb NOT NULL,
    sample jsonb NOT NULL,
    CONSTRAINT processes_role_check CHECK (((role)::text = ANY (ARRAY[('API'::character varying)::text, ('WORKER'::character varying)::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

COMMENT ON TABLE public.processes IS 'A process that runs. `kinds` is what a worker offers, `sample` what it last said of itself.';

COMMENT ON COLUMN public.processes.role IS 'API: API\nWORKER: WORKER';

CREATE TABLE public.product_candidates (
    id uuid NOT NULL,
    "position" integer NOT NULL,
    page integer NOT NULL,
    box jsonb NOT NULL,
    evidence text NOT NULL,
    name character varying(255) NOT NULL,
    sku character varying(64),
    ean character varying(14),
    price numeric(14,4),
    currency character varying(3),
    quantity numeric(14,3),
    unit character varying(16),
    confidences jsonb NOT NULL,
    confidence double precision NOT NULL,
    state character varying(16) NOT NULL,
    decided_at timestamp with time zone,
    acceptance_id uuid,
    decided_by_id uuid,
    job_id uuid NOT NULL,
    product_id uuid,
    CONSTRAINT candidates_confidence_check CHECK (((confidence >= (0)::double precision) AND (confidence <= (1)::double precision))),
    CONSTRAINT candidates_decided_check CHECK ((((state)::text = 'PENDING'::text) = (decided_at IS NULL))),
    CONSTRAINT candidates_state_check CHECK (((state)::text = ANY (ARRAY[('PENDING'::character varying)::text, ('ACCEPTED'::character varying)::text, ('REJECTED'::character varying)::text])))
);

COMMENT ON TABLE public.product_candidates IS 'A product that a document may name. `confidences` has one number from 0 to 1 per field that was found.';

COMMENT ON COLUMN public.product_candidates.state IS 'PENDING: PENDING\nACCEPTED: ACCEPTED\nREJECTED: REJECTED';

CREATE TABLE public.product_media (
    id uuid NOT NULL,
    "position" integer NOT NULL,
    alt character varying(255) NOT NULL,
    media_id uuid NOT NULL,
    product_id uuid NOT NULL
);

COMMENT ON TABLE public.product_media IS 'A picture, document or video of a product, in its place.';

CREATE TABLE public.product_prices (
    id uuid NOT NULL,
    price numeric(14,4),
    currency character varying(3),
    source character varying(16) NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    changed_by_id uuid,
    product_id uuid NOT NULL
);

COMMENT ON TABLE public.product_prices IS 'What a product cost from a moment on; null from when it had no price.';

COMMENT ON COLUMN public.product_prices.source IS 'MANUAL: MANUAL\nIMPORT: IMPORT\nDOCUMENT: DOCUMENT\nCRAWL: CRAWL';

CREATE TABLE public.product_sources (
    id uuid NOT NULL,
    dataset_id uuid NOT NULL,
    run_id uuid NOT NULL,
    source character varying(255) NOT NULL,
    source_id character varying(255) NOT NULL,
    url text NOT NULL,
    price numeric(14,4),
    currency character varying(3),
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    gone_at timestamp with time zone,
    job_id uuid,
    product_id uuid
);

COMMENT ON TABLE public.product_sources IS 'A listing of a product on a site, as crawls have seen it.';

CREATE TABLE public.products (
    id uuid NOT NULL,
    name character varying(255) NOT NULL,
    slug character varying(255) NOT NULL,
    sku character varying(64),
    sku_key character varying(64),
    ean character varying(14),
    description text NOT NULL,
    price numeric(14,4),
    currency character varying(3),
    unit character varying(16),
    stock numeric(14,3),
    category character varying(120),
    attributes jsonb NOT NULL,
    is_active boolean NOT NULL,
    version integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    search_name text GENERATED ALWAYS AS (public.search_form((name)::text)) STORED,
    search_words tsvector GENERATED ALWAYS AS (public.product_words((((((((((name)::text || ' '::text) || (COALESCE(sku, ''::character varying))::text) || ' '::text) || (COALESCE(ean, ''::character varying))::text) || ' '::text) || (COALESCE(category, ''::character varying))::text) || ' '::text) || "left"(description, 4000)))) STORED,
    CONSTRAINT products_currency_check CHECK (((currency)::text ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT products_ean_check CHECK (((ean)::text ~ '^([0-9]{8}|[0-9]{12,14})$'::text)),
    CONSTRAINT products_money_check CHECK (((price IS NULL) = (currency IS NULL))),
    CONSTRAINT products_price_check CHECK ((price >= (0)::numeric)),
    CONSTRAINT products_sku_check CHECK (((sku IS NULL) = (sku_key IS NULL))),
    CONSTRAINT products_stock_check CHECK ((stock >= (0)::numeric))
);

COMMENT ON TABLE public.products IS 'A product. `price` and `currency` are both there or both not; `version` grows with each change.';

CREATE TABLE public.projects (
    id uuid NOT NULL,
    name character varying(120) NOT NULL,
    slug character varying(40) NOT NULL,
    repository character varying(1024) NOT NULL,
    repository_key character varying(1024) NOT NULL,
    repository_full_name character varying(255),
    branch character varying(255) NOT NULL,
    root_directory character varying(255) NOT NULL,
    framework character varying(32),
    install_command character varying(1000),
    build_command character varying(1000),
    output_directory character varying(255),
    spa_fallback boolean,
    auto_deploy boolean NOT NULL,
    preview_deployments boolean NOT NULL,
    supersede character varying(16) NOT NULL,
    install_scripts boolean NOT NULL,
    build_network boolean NOT NULL,
    submodules boolean NOT NULL,
    github_hook_id bigint,
    deployment_count integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL,
    CONSTRAINT projects_slug_check CHECK (((slug)::text ~ '^[a-z0-9]+(-[a-z0-9]+)*$'::text)),
    CONSTRAINT projects_supersede_check CHECK (((supersede)::text = ANY (ARRAY[('NONE'::character varying)::text, ('QUEUED'::character varying)::text, ('ALL'::character varying)::text])))
);

COMMENT ON TABLE public.projects IS 'A repository and how it becomes a site.';

COMMENT ON COLUMN public.projects.supersede IS 'NONE: NONE\nQUEUED: QUEUED\nALL: ALL';

CREATE TABLE public.properties (
    id uuid NOT NULL,
    dataset_id uuid NOT NULL,
    run_id uuid NOT NULL,
    source character varying(255) NOT NULL,
    source_id character varying(255) NOT NULL,
    url text NOT NULL,
    title character varying(500) NOT NULL,
    price numeric(16,4),
    currency character varying(3),
    area numeric(16,6),
    area_unit character varying(16),
    square_metres numeric(30,14),
    bedrooms double precision,
    bathrooms double precision,
    property_type character varying(120),
    street character varying(255),
    city character varying(120),
    region character varying(120),
    postal_code character varying(32),
    country character varying(120),
    latitude double precision,
    longitude double precision,
    description text NOT NULL,
    images jsonb NOT NULL,
    date_posted character varying(40),
    price_id uuid NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    last_changed_at timestamp with time zone NOT NULL,
    price_changed_at timestamp with time zone NOT NULL,
    gone_at timestamp with time zone,
    job_id uuid,
    owner_id uuid NOT NULL,
    price_per_square_metre numeric(24,4) GENERATED ALWAYS AS (round((price / square_metres), 4)) STORED,
    place point GENERATED ALWAYS AS (point(longitude, latitude)) STORED,
    city_key text GENERATED ALWAYS AS (public.search_form((city)::text)) STORED,
    region_key text GENERATED ALWAYS AS (public.search_form((region)::text)) STORED,
    country_key text GENERATED ALWAYS AS (public.search_form((country)::text)) STORED,
    currency_order text GENERATED ALWAYS AS (COALESCE(currency, '~'::character varying)) STORED NOT NULL COLLATE pg_catalog."C",
    price_order bigint GENERATED ALWAYS AS (COALESCE(((price * (10000)::numeric))::bigint, '9223372036854775807'::bigint)) STORED NOT NULL,
    area_order bigint GENERATED ALWAYS AS (COALESCE(((square_metres * (10000)::numeric))::bigint, '9223372036854775807'::bigint)) STORED NOT NULL,
    unit_price_order bigint GENERATED ALWAYS AS (
CASE
    WHEN ((price / square_metres) < ('900000000000000'::bigint)::numeric) THEN (((price / square_metres) * (10000)::numeric))::bigint
    ELSE '9223372036854775807'::bigint
END) STORED NOT NULL,
    location_words tsvector GENERATED ALWAYS AS (public.product_words((((((((((COALESCE(street, ''::character varying))::text || ' '::text) || (COALESCE(city, ''::character varying))::text) || ' '::text) || (COALESCE(region, ''::character varying))::text) || ' '::text) || (COALESCE(postal_code, ''::character varying))::text) || ' '::text) || (COALESCE(country, ''::character varying))::text))) STORED NOT NULL,
    search_words tsvector GENERATED ALWAYS AS (public.product_words((((((((((((((((title)::text || ' '::text) || (source_id)::text) || ' '::text) || (COALESCE(property_type, ''::character varying))::text) || ' '::text) || (COALESCE(street, ''::character varying))::text) || ' '::text) || (COALESCE(city, ''::character varying))::text) || ' '::text) || (COALESCE(region, ''::character varying))::text) || ' '::text) || (COALESCE(postal_code, ''::character varying))::text) || ' '::text) || "left"(description, 4000)))) STORED NOT NULL,
    CONSTRAINT properties_area_check CHECK ((((area_unit IS NULL) = (square_metres IS NULL)) AND ((area IS NOT NULL) OR (area_unit IS NULL)))),
    CONSTRAINT properties_area_size_check CHECK (((area > (0)::numeric) AND (square_metres > (0)::numeric))),
    CONSTRAINT properties_area_unit_check CHECK (((area_unit)::text = ANY (ARRAY[('SQUARE_FEET'::character varying)::text, ('SQUARE_METRES'::character varying)::text, ('ACRES'::character varying)::text, ('HECTARES'::character varying)::text]))),
    CONSTRAINT properties_currency_check CHECK (((currency IS NULL) OR (((currency)::text ~ '^[A-Z]{3}$'::text) AND (price IS NOT NULL)))),
    CONSTRAINT properties_place_check CHECK ((((latitude IS NULL) = (longitude IS NULL)) AND ((latitude >= ('-90'::integer)::double precision) AND (latitude <= (90)::double precision)) AND ((longitude >= ('-180'::integer)::double precision) AND (longitude <= (180)::double precision)))),
    CONSTRAINT properties_price_check CHECK ((price >= (0)::numeric))
)
WITH (fillfactor='85');

COMMENT ON TABLE public.properties IS 'A listing of a site. `source` is the site''s host, `source_id` the site''s own number of it.';

CREATE TABLE public.property_prices (
    id uuid NOT NULL,
    price numeric(16,4),
    currency character varying(3),
    seen_at timestamp with time zone NOT NULL,
    run_id uuid NOT NULL,
    property_id uuid NOT NULL
);

COMMENT ON TABLE public.property_prices IS 'What a listing asked from a moment on; null from when it named no price.';

CREATE TABLE public.queue_turns (
    id bigint NOT NULL,
    kind character varying(16) NOT NULL,
    served_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL
);

COMMENT ON TABLE public.queue_turns IS 'When an owner was last served by a kind: the memory of fair claims.';

CREATE SEQUENCE public.queue_turns_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.queue_turns_id_seq OWNED BY public.queue_turns.id;

CREATE TABLE public.recovery_codes (
    id uuid NOT NULL,
    prefix character varying(4) NOT NULL,
    code_hash character varying(255) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    user_id uuid NOT NULL
);

COMMENT ON TABLE public.recovery_codes IS 'One of the codes that stand in for a lost second factor: works once. `prefix` finds it, the hash proves it.';

CREATE TABLE public.rejected_items (
    id bigint NOT NULL,
    run_id uuid NOT NULL,
    key character varying(128) NOT NULL,
    url text NOT NULL,
    data jsonb NOT NULL,
    faults jsonb NOT NULL,
    rejected_at timestamp with time zone NOT NULL,
    dataset_id uuid NOT NULL
);

COMMENT ON TABLE public.rejected_items IS 'An item that does not fit its spider''s output, and where.';

CREATE SEQUENCE public.rejected_items_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.rejected_items_id_seq OWNED BY public.rejected_items.id;

CREATE TABLE public.risk_triage (
    id uuid NOT NULL,
    document_key character varying(128) NOT NULL,
    fingerprint character varying(64) NOT NULL,
    state character varying(16) NOT NULL,
    note text,
    decided_at timestamp with time zone NOT NULL,
    until timestamp with time zone,
    decided_by_id uuid,
    owner_id uuid NOT NULL,
    CONSTRAINT risk_triage_state_check CHECK (((state)::text = ANY (ARRAY[('OPEN'::character varying)::text, ('ACCEPTED'::character varying)::text, ('MITIGATED'::character varying)::text, ('FALSE_POSITIVE'::character varying)::text])))
);

COMMENT ON TABLE public.risk_triage IS 'What was decided about a sentence of a document; until when, if not for good.';

COMMENT ON COLUMN public.risk_triage.state IS 'OPEN: OPEN\nACCEPTED: ACCEPTED\nMITIGATED: MITIGATED\nFALSE_POSITIVE: FALSE_POSITIVE';

CREATE TABLE public.rollup_deltas (
    owner_id uuid NOT NULL,
    kind character varying(16) NOT NULL,
    label character varying(80) NOT NULL,
    at timestamp with time zone NOT NULL,
    created bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    begun bigint NOT NULL,
    waited_ms bigint NOT NULL,
    worked_ms bigint NOT NULL,
    succeeded_ms bigint NOT NULL,
    built_ms bigint NOT NULL,
    items bigint NOT NULL,
    pages bigint NOT NULL,
    downloaded_bytes bigint NOT NULL,
    artifact_bytes bigint NOT NULL,
    uploaded_bytes bigint NOT NULL,
    log_bytes bigint NOT NULL,
    id bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

COMMENT ON TABLE public.rollup_deltas IS 'A change of sums that is not folded yet. `at` is the beginning of a quarter-hour.';

CREATE SEQUENCE public.rollup_deltas_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.rollup_deltas_id_seq OWNED BY public.rollup_deltas.id;

CREATE TABLE public.rollups (
    owner_id uuid NOT NULL,
    kind character varying(16) NOT NULL,
    label character varying(80) NOT NULL,
    at timestamp with time zone NOT NULL,
    created bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    begun bigint NOT NULL,
    waited_ms bigint NOT NULL,
    worked_ms bigint NOT NULL,
    succeeded_ms bigint NOT NULL,
    built_ms bigint NOT NULL,
    items bigint NOT NULL,
    pages bigint NOT NULL,
    downloaded_bytes bigint NOT NULL,
    artifact_bytes bigint NOT NULL,
    uploaded_bytes bigint NOT NULL,
    log_bytes bigint NOT NULL,
    id bigint NOT NULL
);

COMMENT ON TABLE public.rollups IS 'Sums of one owner, or of everybody, for one quarter-hour, or for all time: then `at` is `-infinity`.';

CREATE SEQUENCE public.rollups_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.rollups_id_seq OWNED BY public.rollups.id;

CREATE TABLE public.run_hosts (
    id bigint NOT NULL,
    host character varying(255) NOT NULL,
    requests bigint NOT NULL,
    pages bigint NOT NULL,
    bytes bigint NOT NULL,
    retried bigint NOT NULL,
    throttled bigint NOT NULL,
    failed bigint NOT NULL,
    robots bigint NOT NULL,
    blocked bigint NOT NULL,
    off_site bigint NOT NULL,
    depth bigint NOT NULL,
    duplicate bigint NOT NULL,
    not_http bigint NOT NULL,
    too_long bigint NOT NULL,
    run_id uuid NOT NULL
);

COMMENT ON TABLE public.run_hosts IS 'What a run asked of one host and what came of it.';

CREATE SEQUENCE public.run_hosts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.run_hosts_id_seq OWNED BY public.run_hosts.id;

CREATE TABLE public.scan_risks (
    id uuid NOT NULL,
    "position" integer NOT NULL,
    category character varying(64) NOT NULL,
    risk text NOT NULL,
    context text NOT NULL,
    severity character varying(16) NOT NULL,
    severity_source character varying(16) NOT NULL,
    confidence double precision,
    start integer,
    "end" integer,
    page integer,
    rule character varying(64),
    cue character varying(200),
    fingerprint character varying(64) NOT NULL,
    extra jsonb,
    scan_id uuid NOT NULL,
    CONSTRAINT scan_risks_severity_check CHECK (((severity)::text = ANY (ARRAY[('LOW'::character varying)::text, ('MEDIUM'::character varying)::text, ('HIGH'::character varying)::text, ('CRITICAL'::character varying)::text]))),
    CONSTRAINT scan_risks_span_check CHECK (((start IS NULL) = ("end" IS NULL)))
);

COMMENT ON TABLE public.scan_risks IS 'One risk that a scan found. `start`, `end` and `page` say where its context is, where that was found.';

COMMENT ON COLUMN public.scan_risks.severity IS 'LOW: LOW\nMEDIUM: MEDIUM\nHIGH: HIGH\nCRITICAL: CRITICAL';

COMMENT ON COLUMN public.scan_risks.severity_source IS 'UPSTREAM: UPSTREAM\nRULE: RULE';

CREATE TABLE public.scans (
    filename character varying(255),
    content_type character varying(127) NOT NULL,
    size bigint NOT NULL,
    text text,
    file_key character varying(512),
    document_key character varying(128) NOT NULL,
    force_llm boolean NOT NULL,
    source character varying(16),
    scanner jsonb,
    is_truncated boolean NOT NULL,
    risk_count integer NOT NULL,
    extra jsonb,
    media_id uuid,
    execution_id uuid NOT NULL,
    CONSTRAINT scans_input_check CHECK (((num_nonnulls(text, file_key) + ((media_id IS NOT NULL))::integer) <= 1)),
    CONSTRAINT scans_source_check CHECK (((source)::text = ANY (ARRAY[('LLM'::character varying)::text, ('MODEL'::character varying)::text])))
);

COMMENT ON TABLE public.scans IS 'What a scan adds to its execution: its input (a text, a medium or a file of its own) and where it came from.';

COMMENT ON COLUMN public.scans.source IS 'LLM: LLM\nMODEL: MODEL';

CREATE TABLE public.schedule_ticks (
    id bigint NOT NULL,
    tick_at timestamp with time zone NOT NULL,
    outcome character varying(16) NOT NULL,
    reason character varying(32),
    run_id uuid,
    decided_at timestamp with time zone NOT NULL,
    job_id uuid NOT NULL,
    CONSTRAINT schedule_ticks_run_check CHECK ((((outcome)::text = 'STARTED'::text) = (run_id IS NOT NULL)))
);

COMMENT ON TABLE public.schedule_ticks IS 'What became of one moment of a job''s schedule. `run_id` is kept when the run is deleted.';

COMMENT ON COLUMN public.schedule_ticks.outcome IS 'STARTED: STARTED\nQUEUED: QUEUED\nSKIPPED: SKIPPED\nMISSED: MISSED\nREFUSED: REFUSED';

COMMENT ON COLUMN public.schedule_ticks.reason IS 'STILL_RUNNING: STILL_RUNNING\nSCHEDULE_CHANGED: SCHEDULE_CHANGED\nTOOL_INACTIVE: TOOL_INACTIVE\nOWNER_INACTIVE: OWNER_INACTIVE\nQUEUE_FULL: QUEUE_FULL\nDAILY_LIMIT: DAILY_LIMIT';

CREATE SEQUENCE public.schedule_ticks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.schedule_ticks_id_seq OWNED BY public.schedule_ticks.id;

CREATE TABLE public.service_changes (
    id bigint NOT NULL,
    service character varying(16) NOT NULL,
    state character varying(16) NOT NULL,
    at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.service_changes IS 'A state that a service had from a moment on.';

COMMENT ON COLUMN public.service_changes.service IS 'API: API\nDATABASE: DATABASE\nQUEUE: QUEUE\nSTORAGE: STORAGE\nBUILDS: BUILDS\nAI_SERVICE: AI_SERVICE\nMAIL: MAIL';

COMMENT ON COLUMN public.service_changes.state IS 'OPERATIONAL: OPERATIONAL\nDEGRADED: DEGRADED\nDOWN: DOWN\nUNKNOWN: UNKNOWN';

CREATE SEQUENCE public.service_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.service_changes_id_seq OWNED BY public.service_changes.id;

CREATE TABLE public.service_checks (
    service character varying(16) NOT NULL,
    verdict character varying(16) NOT NULL,
    milliseconds double precision,
    at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.service_checks IS 'The last result of a check that is too heavy to be made with every probe.';

COMMENT ON COLUMN public.service_checks.service IS 'API: API\nDATABASE: DATABASE\nQUEUE: QUEUE\nSTORAGE: STORAGE\nBUILDS: BUILDS\nAI_SERVICE: AI_SERVICE\nMAIL: MAIL';

COMMENT ON COLUMN public.service_checks.verdict IS 'OPERATIONAL: OPERATIONAL\nDEGRADED: DEGRADED\nDOWN: DOWN\nUNKNOWN: UNKNOWN';

CREATE TABLE public.service_hours (
    id bigint NOT NULL,
    service character varying(16) NOT NULL,
    hour timestamp with time zone NOT NULL,
    operational integer NOT NULL,
    degraded integer NOT NULL,
    down integer NOT NULL,
    worst smallint NOT NULL,
    milliseconds_sum double precision NOT NULL,
    milliseconds_min double precision,
    milliseconds_max double precision,
    histogram integer[] NOT NULL
);

COMMENT ON TABLE public.service_hours IS 'The probes of one service in one hour (UTC): how many found what, and how long answers took.';

COMMENT ON COLUMN public.service_hours.service IS 'API: API\nDATABASE: DATABASE\nQUEUE: QUEUE\nSTORAGE: STORAGE\nBUILDS: BUILDS\nAI_SERVICE: AI_SERVICE\nMAIL: MAIL';

CREATE SEQUENCE public.service_hours_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.service_hours_id_seq OWNED BY public.service_hours.id;

CREATE TABLE public.service_states (
    service character varying(16) NOT NULL,
    state character varying(16) NOT NULL,
    since timestamp with time zone NOT NULL,
    verdict character varying(16) NOT NULL,
    probed_at timestamp with time zone NOT NULL,
    milliseconds double precision,
    failures integer NOT NULL,
    impairments integer NOT NULL,
    successes integer NOT NULL,
    failing_since timestamp with time zone
);

COMMENT ON TABLE public.service_states IS 'How a service is now; `failures` and `impairments` are probes in a row that found it down or not quite well.';

COMMENT ON COLUMN public.service_states.service IS 'API: API\nDATABASE: DATABASE\nQUEUE: QUEUE\nSTORAGE: STORAGE\nBUILDS: BUILDS\nAI_SERVICE: AI_SERVICE\nMAIL: MAIL';

COMMENT ON COLUMN public.service_states.state IS 'OPERATIONAL: OPERATIONAL\nDEGRADED: DEGRADED\nDOWN: DOWN\nUNKNOWN: UNKNOWN';

COMMENT ON COLUMN public.service_states.verdict IS 'OPERATIONAL: OPERATIONAL\nDEGRADED: DEGRADED\nDOWN: DOWN\nUNKNOWN: UNKNOWN';

CREATE TABLE public.sessions (
    id uuid NOT NULL,
    refresh_counter integer NOT NULL,
    rotated_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    revoked_reason character varying(32),
    ip character varying(45),
    user_agent character varying(512),
    user_id uuid NOT NULL,
    CONSTRAINT sessions_counter_check CHECK ((refresh_counter >= 0))
);

COMMENT ON TABLE public.sessions IS 'A sign-in on one device: lives until it is revoked, idle too long or too old.';

CREATE TABLE public.site_aliases (
    id bigint NOT NULL,
    name character varying(63) NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deployment_id uuid NOT NULL,
    project_id uuid NOT NULL
);

COMMENT ON TABLE public.site_aliases IS 'An address of a project and the deployment it leads to.';

CREATE SEQUENCE public.site_aliases_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.site_aliases_id_seq OWNED BY public.site_aliases.id;

CREATE TABLE public.site_blobs (
    id bigint NOT NULL,
    sha256 bytea NOT NULL,
    size bigint NOT NULL,
    object_key character varying(255) NOT NULL,
    brotli_size bigint,
    gzip_size bigint,
    reserved_until timestamp with time zone NOT NULL,
    project_id uuid NOT NULL,
    CONSTRAINT site_blobs_content_check CHECK (((octet_length(sha256) = 32) AND (size >= 0)))
);

COMMENT ON TABLE public.site_blobs IS 'Content of a project''s sites, by its SHA-256; `object_key` with `.br` or `.gz` holds a smaller form, if sized.';

CREATE SEQUENCE public.site_blobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.site_blobs_id_seq OWNED BY public.site_blobs.id;

CREATE TABLE public.site_publications (
    id bigint NOT NULL,
    alias character varying(63) NOT NULL,
    deployment_id uuid NOT NULL,
    previous_id uuid,
    reason character varying(16) NOT NULL,
    user_id uuid,
    at timestamp with time zone NOT NULL,
    project_id uuid NOT NULL
);

COMMENT ON TABLE public.site_publications IS 'One move of an alias: append-only.';

COMMENT ON COLUMN public.site_publications.reason IS 'MANUAL: MANUAL\nPUSH: PUSH\nPULL_REQUEST: PULL_REQUEST\nREDEPLOY: REDEPLOY\nROLLBACK: ROLLBACK\nDEPLOY_HOOK: DEPLOY_HOOK\nAPI: API';

CREATE SEQUENCE public.site_publications_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.site_publications_id_seq OWNED BY public.site_publications.id;

CREATE TABLE public.ticks (
    name character varying(64) NOT NULL,
    at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.ticks IS 'The last tick of something periodic that anybody took.';

CREATE TABLE public.tools (
    id uuid NOT NULL,
    slug character varying(64) NOT NULL,
    name character varying(120) NOT NULL,
    category character varying(64) NOT NULL,
    description text NOT NULL,
    states jsonb NOT NULL,
    icon character varying(64),
    spider character varying(64) NOT NULL,
    input_schema jsonb NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT tools_slug_check CHECK (((slug)::text ~ '^[a-z0-9]+(-[a-z0-9]+)*$'::text))
);

COMMENT ON TABLE public.tools IS 'A catalogue entry.';

CREATE TABLE public.tortoise_migrations (
    id integer NOT NULL,
    app character varying(255) NOT NULL,
    name character varying(255) NOT NULL,
    applied_at timestamp with time zone NOT NULL
);

CREATE SEQUENCE public.tortoise_migrations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.tortoise_migrations_id_seq OWNED BY public.tortoise_migrations.id;

CREATE TABLE public.users (
    id uuid NOT NULL,
    email character varying(254) NOT NULL,
    email_key character varying(254) NOT NULL,
    username character varying(32) NOT NULL,
    username_key character varying(32) NOT NULL,
    name character varying(120) NOT NULL,
    password_hash character varying(255),
    role character varying(16) NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_login_at timestamp with time zone,
    avatar_url character varying(1024),
    email_verified_at timestamp with time zone,
    password_changed_at timestamp with time zone,
    deleted_at timestamp with time zone,
    sealed_totp text,
    totp_confirmed_at timestamp with time zone,
    totp_last_step bigint,
    CONSTRAINT users_deleted_check CHECK (((deleted_at IS NULL) OR (NOT is_active))),
    CONSTRAINT users_role_check CHECK (((role)::text = ANY (ARRAY[('USER'::character varying)::text, ('ADMIN'::character varying)::text]))),
    CONSTRAINT users_second_factor_check CHECK (((totp_confirmed_at IS NULL) OR (sealed_totp IS NOT NULL)))
);

COMMENT ON TABLE public.users IS 'A person with an account. `email_key` and `username_key` are the case-folded forms that must be unique.';

COMMENT ON COLUMN public.users.role IS 'USER: USER\nADMIN: ADMIN';

CREATE TABLE public.webhook_deliveries (
    id uuid NOT NULL,
    provider character varying(16) NOT NULL,
    delivery_id character varying(64) NOT NULL,
    event character varying(64) NOT NULL,
    action character varying(64),
    repository character varying(255),
    body text NOT NULL,
    status character varying(16) NOT NULL,
    message text NOT NULL,
    attempts integer NOT NULL,
    received_at timestamp with time zone NOT NULL,
    processed_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.webhook_deliveries IS 'One delivery, as it came; its signature was right.';

COMMENT ON COLUMN public.webhook_deliveries.provider IS 'GITHUB: GITHUB';

COMMENT ON COLUMN public.webhook_deliveries.status IS 'PROCESSED: PROCESSED\nIGNORED: IGNORED\nFAILED: FAILED';

CREATE TABLE public.webhook_dispatches (
    id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type character varying(32) NOT NULL,
    payload text NOT NULL,
    state character varying(16) NOT NULL,
    attempts integer NOT NULL,
    attempts_before integer NOT NULL,
    next_attempt_at timestamp with time zone,
    lease_until timestamp with time zone,
    status_code smallint,
    duration_ms integer,
    response_excerpt text,
    failure_code character varying(32),
    failure_message text,
    attempt_log jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    endpoint_id uuid NOT NULL,
    CONSTRAINT webhook_dispatches_finish_check CHECK (((((state)::text = 'PENDING'::text) = (finished_at IS NULL)) AND (((state)::text = 'PENDING'::text) = (next_attempt_at IS NOT NULL)))),
    CONSTRAINT webhook_dispatches_lease_check CHECK (((lease_until IS NULL) OR ((state)::text = 'PENDING'::text))),
    CONSTRAINT webhook_dispatches_state_check CHECK (((state)::text = ANY (ARRAY[('PENDING'::character varying)::text, ('DELIVERED'::character varying)::text, ('FAILED'::character varying)::text])))
);

COMMENT ON TABLE public.webhook_dispatches IS 'One event for one endpoint. `attempts` is the fencing token of whoever holds the lease.';

COMMENT ON COLUMN public.webhook_dispatches.event_type IS 'RUN_STARTED: run.started\nRUN_SUCCEEDED: run.succeeded\nRUN_INCOMPLETE: run.incomplete\nRUN_FAILED: run.failed\nRUN_CANCELLED: run.cancelled\nDEPLOYMENT_QUEUED: deployment.queued\nDEPLOYMENT_STARTED: deployment.started\nDEPLOYMENT_SUCCEEDED: deployment.succeeded\nDEPLOYMENT_FAILED: deployment.failed\nDEPLOYMENT_CANCELLED: deployment.cancelled\nDEPLOYMENT_PROMOTED: deployment.promoted\nSCAN_STARTED: scan.started\nSCAN_SUCCEEDED: scan.succeeded\nSCAN_FAILED: scan.failed\nSCAN_CANCELLED: scan.cancelled\nOCR_STARTED: ocr.started\nOCR_SUCCEEDED: ocr.succeeded\nOCR_FAILED: ocr.failed\nOCR_CANCELLED: ocr.cancelled\nEXPORT_SUCCEEDED: export.succeeded\nEXPORT_FAILED: export.failed\nEXPORT_CANCELLED: export.cancelled\nPING: ping';

COMMENT ON COLUMN public.webhook_dispatches.state IS 'PENDING: PENDING\nDELIVERED: DELIVERED\nFAILED: FAILED';

COMMENT ON COLUMN public.webhook_dispatches.failure_code IS 'BLOCKED_URL: BLOCKED_URL\nUNKNOWN_HOST: UNKNOWN_HOST\nCONNECTION_FAILED: CONNECTION_FAILED\nTLS_FAILED: TLS_FAILED\nTIMED_OUT: TIMED_OUT\nREDIRECTED: REDIRECTED\nBAD_STATUS: BAD_STATUS\nGONE: GONE\nENDPOINT_DISABLED: ENDPOINT_DISABLED\nWORKER_LOST: WORKER_LOST\nINTERNAL: INTERNAL';

CREATE TABLE public.webhook_effects (
    id bigint NOT NULL,
    deployment_id uuid,
    message text NOT NULL,
    delivery_id uuid NOT NULL,
    project_id uuid NOT NULL
);

COMMENT ON TABLE public.webhook_effects IS 'What a delivery did to a project: a deployment, or the reason why there is none.';

CREATE SEQUENCE public.webhook_effects_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.webhook_effects_id_seq OWNED BY public.webhook_effects.id;

CREATE TABLE public.webhook_endpoints (
    id uuid NOT NULL,
    url character varying(2048) NOT NULL,
    description character varying(200) NOT NULL,
    event_types jsonb,
    sealed_secret text,
    sealed_previous_secret text,
    previous_secret_until timestamp with time zone,
    is_active boolean NOT NULL,
    failing_since timestamp with time zone,
    disabled_at timestamp with time zone,
    disabled_reason character varying(16),
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    job_id uuid,
    owner_id uuid NOT NULL,
    project_id uuid,
    CONSTRAINT webhook_endpoints_disabled_check CHECK (((is_active = (disabled_at IS NULL)) AND (is_active = (disabled_reason IS NULL)))),
    CONSTRAINT webhook_endpoints_previous_check CHECK (((sealed_previous_secret IS NULL) = (previous_secret_until IS NULL)))
);

COMMENT ON TABLE public.webhook_endpoints IS 'An address that is told what happens to its owner''s things, or only to those of a project or a job.';

COMMENT ON COLUMN public.webhook_endpoints.disabled_reason IS 'BY_USER: BY_USER\nGONE: GONE\nFAILING: FAILING';

ALTER TABLE ONLY public.crawl_days ALTER COLUMN id SET DEFAULT nextval('public.crawl_days_id_seq'::regclass);

ALTER TABLE ONLY public.crawl_requests ALTER COLUMN id SET DEFAULT nextval('public.crawl_requests_id_seq'::regclass);

ALTER TABLE ONLY public.deployment_files ALTER COLUMN id SET DEFAULT nextval('public.deployment_files_id_seq'::regclass);

ALTER TABLE ONLY public.execution_events ALTER COLUMN id SET DEFAULT nextval('public.execution_events_id_seq'::regclass);

ALTER TABLE ONLY public.idempotency_keys ALTER COLUMN id SET DEFAULT nextval('public.idempotency_keys_id_seq'::regclass);

ALTER TABLE ONLY public.item_versions ALTER COLUMN id SET DEFAULT nextval('public.item_versions_id_seq'::regclass);

ALTER TABLE ONLY public.items ALTER COLUMN id SET DEFAULT nextval('public.items_id_seq'::regclass);

ALTER TABLE ONLY public.log_chunks ALTER COLUMN id SET DEFAULT nextval('public.log_chunks_id_seq'::regclass);

ALTER TABLE ONLY public.outbox_messages ALTER COLUMN id SET DEFAULT nextval('public.outbox_messages_id_seq'::regclass);

ALTER TABLE ONLY public.queue_turns ALTER COLUMN id SET DEFAULT nextval('public.queue_turns_id_seq'::regclass);

ALTER TABLE ONLY public.rejected_items ALTER COLUMN id SET DEFAULT nextval('public.rejected_items_id_seq'::regclass);

ALTER TABLE ONLY public.rollup_deltas ALTER COLUMN id SET DEFAULT nextval('public.rollup_deltas_id_seq'::regclass);

ALTER TABLE ONLY public.rollups ALTER COLUMN id SET DEFAULT nextval('public.rollups_id_seq'::regclass);

ALTER TABLE ONLY public.run_hosts ALTER COLUMN id SET DEFAULT nextval('public.run_hosts_id_seq'::regclass);

ALTER TABLE ONLY public.schedule_ticks ALTER COLUMN id SET DEFAULT nextval('public.schedule_ticks_id_seq'::regclass);

ALTER TABLE ONLY public.service_changes ALTER COLUMN id SET DEFAULT nextval('public.service_changes_id_seq'::regclass);

ALTER TABLE ONLY public.service_hours ALTER COLUMN id SET DEFAULT nextval('public.service_hours_id_seq'::regclass);

ALTER TABLE ONLY public.site_aliases ALTER COLUMN id SET DEFAULT nextval('public.site_aliases_id_seq'::regclass);

ALTER TABLE ONLY public.site_blobs ALTER COLUMN id SET DEFAULT nextval('public.site_blobs_id_seq'::regclass);

ALTER TABLE ONLY public.site_publications ALTER COLUMN id SET DEFAULT nextval('public.site_publications_id_seq'::regclass);

ALTER TABLE ONLY public.tortoise_migrations ALTER COLUMN id SET DEFAULT nextval('public.tortoise_migrations_id_seq'::regclass);

ALTER TABLE ONLY public.webhook_effects ALTER COLUMN id SET DEFAULT nextval('public.webhook_effects_id_seq'::regclass);

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_hash UNIQUE (token_hash);

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.audit_events
    ADD CONSTRAINT audit_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.candidate_acceptances
    ADD CONSTRAINT candidate_acceptances_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.crawl_days
    ADD CONSTRAINT crawl_days_day UNIQUE (owner_id, day);

ALTER TABLE ONLY public.crawl_days
    ADD CONSTRAINT crawl_days_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.crawl_requests
    ADD CONSTRAINT crawl_requests_fingerprint UNIQUE (dataset_id, fingerprint);

ALTER TABLE ONLY public.crawl_requests
    ADD CONSTRAINT crawl_requests_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.deploy_hooks
    ADD CONSTRAINT deploy_hooks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.deploy_hooks
    ADD CONSTRAINT deploy_hooks_token UNIQUE (token_hash);

ALTER TABLE ONLY public.deployment_files
    ADD CONSTRAINT deployment_files_path UNIQUE (deployment_id, path);

ALTER TABLE ONLY public.deployment_files
    ADD CONSTRAINT deployment_files_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_number UNIQUE (project_id, number);

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_site_key UNIQUE (site_key);

ALTER TABLE ONLY public.document_pages
    ADD CONSTRAINT document_pages_number UNIQUE (job_id, number);

ALTER TABLE ONLY public.document_pages
    ADD CONSTRAINT document_pages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT environment_variables_name UNIQUE (project_id, environment, name);

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT environment_variables_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.execution_events
    ADD CONSTRAINT execution_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.execution_facts
    ADD CONSTRAINT execution_facts_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_subject UNIQUE (provider, subject);

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_user UNIQUE (user_id, provider);

ALTER TABLE ONLY public.incident_updates
    ADD CONSTRAINT incident_updates_number UNIQUE (incident_id, number);

ALTER TABLE ONLY public.incident_updates
    ADD CONSTRAINT incident_updates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.incidents
    ADD CONSTRAINT incidents_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.item_exports
    ADD CONSTRAINT item_exports_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.item_versions
    ADD CONSTRAINT item_versions_identity UNIQUE (job_id, identity);

ALTER TABLE ONLY public.item_versions
    ADD CONSTRAINT item_versions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_once UNIQUE (dataset_id, key);

ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_resumed_from_id_key UNIQUE (resumed_from_id);

ALTER TABLE ONLY public.job_schedules
    ADD CONSTRAINT job_schedules_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.log_chunks
    ADD CONSTRAINT log_chunks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.notifications
    ADD CONSTRAINT notifications_once UNIQUE (user_id, key);

ALTER TABLE ONLY public.notifications
    ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.oauth_connections
    ADD CONSTRAINT oauth_connections_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.oauth_connections
    ADD CONSTRAINT oauth_connections_subject UNIQUE (provider, subject);

ALTER TABLE ONLY public.oauth_connections
    ADD CONSTRAINT oauth_connections_user UNIQUE (user_id, provider);

ALTER TABLE ONLY public.ocr_jobs
    ADD CONSTRAINT ocr_jobs_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.one_time_links
    ADD CONSTRAINT one_time_links_hash UNIQUE (token_hash);

ALTER TABLE ONLY public.one_time_links
    ADD CONSTRAINT one_time_links_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.outbox_messages
    ADD CONSTRAINT outbox_messages_key UNIQUE (topic, key);

ALTER TABLE ONLY public.outbox_messages
    ADD CONSTRAINT outbox_messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.output_files
    ADD CONSTRAINT output_files_format UNIQUE (run_id, format);

ALTER TABLE ONLY public.output_files
    ADD CONSTRAINT output_files_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.preferences
    ADD CONSTRAINT preferences_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.processes
    ADD CONSTRAINT processes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_position UNIQUE (job_id, "position");

ALTER TABLE ONLY public.product_media
    ADD CONSTRAINT product_media_key UNIQUE (product_id, media_id);

ALTER TABLE ONLY public.product_media
    ADD CONSTRAINT product_media_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.product_prices
    ADD CONSTRAINT product_prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.product_sources
    ADD CONSTRAINT product_sources_listing UNIQUE (source, source_id);

ALTER TABLE ONLY public.product_sources
    ADD CONSTRAINT product_sources_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_ean UNIQUE (ean);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_sku UNIQUE (sku_key);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_slug UNIQUE (slug);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_slug UNIQUE (slug);

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_listing UNIQUE (owner_id, source, source_id);

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.property_prices
    ADD CONSTRAINT property_prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.queue_turns
    ADD CONSTRAINT queue_turns_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT recovery_codes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT recovery_codes_prefix UNIQUE (user_id, prefix);

ALTER TABLE ONLY public.rejected_items
    ADD CONSTRAINT rejected_items_once UNIQUE (dataset_id, key);

ALTER TABLE ONLY public.rejected_items
    ADD CONSTRAINT rejected_items_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.risk_triage
    ADD CONSTRAINT risk_triage_key UNIQUE (owner_id, document_key, fingerprint);

ALTER TABLE ONLY public.risk_triage
    ADD CONSTRAINT risk_triage_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rollup_deltas
    ADD CONSTRAINT rollup_deltas_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rollups
    ADD CONSTRAINT rollups_key UNIQUE (owner_id, kind, at, label);

ALTER TABLE ONLY public.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.run_hosts
    ADD CONSTRAINT run_hosts_host UNIQUE (run_id, host);

ALTER TABLE ONLY public.run_hosts
    ADD CONSTRAINT run_hosts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.scan_risks
    ADD CONSTRAINT scan_risks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.scan_risks
    ADD CONSTRAINT scan_risks_position UNIQUE (scan_id, "position");

ALTER TABLE ONLY public.scans
    ADD CONSTRAINT scans_pkey PRIMARY KEY (execution_id);

ALTER TABLE ONLY public.schedule_ticks
    ADD CONSTRAINT schedule_ticks_once UNIQUE (job_id, tick_at);

ALTER TABLE ONLY public.schedule_ticks
    ADD CONSTRAINT schedule_ticks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.service_changes
    ADD CONSTRAINT service_changes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.service_checks
    ADD CONSTRAINT service_checks_pkey PRIMARY KEY (service);

ALTER TABLE ONLY public.service_hours
    ADD CONSTRAINT service_hours_key UNIQUE (hour, service);

ALTER TABLE ONLY public.service_hours
    ADD CONSTRAINT service_hours_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.service_states
    ADD CONSTRAINT service_states_pkey PRIMARY KEY (service);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.site_aliases
    ADD CONSTRAINT site_aliases_name UNIQUE (project_id, name);

ALTER TABLE ONLY public.site_aliases
    ADD CONSTRAINT site_aliases_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.site_blobs
    ADD CONSTRAINT site_blobs_content UNIQUE (project_id, sha256);

ALTER TABLE ONLY public.site_blobs
    ADD CONSTRAINT site_blobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.site_publications
    ADD CONSTRAINT site_publications_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ticks
    ADD CONSTRAINT ticks_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.tools
    ADD CONSTRAINT tools_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tools
    ADD CONSTRAINT tools_slug UNIQUE (slug);

ALTER TABLE ONLY public.tortoise_migrations
    ADD CONSTRAINT tortoise_migrations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT uid_idempotency_owner_i_109efc UNIQUE (owner_id, operation, key);

ALTER TABLE ONLY public.log_chunks
    ADD CONSTRAINT uid_log_chunks_executi_22be34 UNIQUE (execution_id, first_sequence);

ALTER TABLE ONLY public.queue_turns
    ADD CONSTRAINT uid_queue_turns_kind_193e13 UNIQUE (kind, owner_id);

ALTER TABLE ONLY public.tortoise_migrations
    ADD CONSTRAINT uid_tortoise_mi_app_3803a5 UNIQUE (app, name);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_key UNIQUE (email_key);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_username_key UNIQUE (username_key);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_once UNIQUE (provider, delivery_id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_dispatches
    ADD CONSTRAINT webhook_dispatches_once UNIQUE (endpoint_id, event_id);

ALTER TABLE ONLY public.webhook_dispatches
    ADD CONSTRAINT webhook_dispatches_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_effects
    ADD CONSTRAINT webhook_effects_once UNIQUE (delivery_id, project_id);

ALTER TABLE ONLY public.webhook_effects
    ADD CONSTRAINT webhook_effects_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id);

CREATE INDEX access_tokens_user ON public.access_tokens USING btree (user_id, id);

CREATE INDEX audit_events_action ON public.audit_events USING btree (action, id);

CREATE INDEX audit_events_actor ON public.audit_events USING btree (actor_id, id);

CREATE INDEX audit_events_request ON public.audit_events USING btree (request_id);

CREATE INDEX audit_events_target ON public.audit_events USING btree (target_id, id);

CREATE INDEX candidate_acceptances_job ON public.candidate_acceptances USING btree (job_id, id);

CREATE INDEX crawl_requests_failed ON public.crawl_requests USING btree (dataset_id, id) WHERE ((state)::text = 'FAILED'::text);

CREATE INDEX crawl_requests_leased ON public.crawl_requests USING btree (dataset_id) WHERE ((state)::text = 'LEASED'::text);

CREATE INDEX crawl_requests_pending ON public.crawl_requests USING btree (dataset_id, rank, id) WHERE ((state)::text = 'PENDING'::text);

CREATE INDEX deploy_hooks_project ON public.deploy_hooks USING btree (project_id, id);

CREATE INDEX deployment_files_blob ON public.deployment_files USING btree (blob_id);

CREATE INDEX deployments_branch ON public.deployments USING btree (project_id, branch, environment);

CREATE INDEX deployments_project ON public.deployments USING btree (project_id, execution_id);

CREATE INDEX document_pages_search_words ON public.document_pages USING gin (search_words);

CREATE INDEX execution_events_execution ON public.execution_events USING btree (execution_id, id);

CREATE INDEX execution_facts_kind ON public.execution_facts USING btree (kind, finished_at) INCLUDE (target_id, outcome, worked_ms, built_ms, items) WHERE (finished_at IS NOT NULL);

CREATE INDEX execution_facts_owner ON public.execution_facts USING btree (owner_id, kind, finished_at) INCLUDE (target_id, outcome, worked_ms, built_ms, items) WHERE (finished_at IS NOT NULL);

CREATE INDEX execution_facts_target_asked ON public.execution_facts USING btree (target_id, queued_at);

CREATE INDEX execution_facts_target_ended ON public.execution_facts USING btree (target_id, finished_at);

CREATE INDEX executions_leases ON public.executions USING btree (kind, owner_id, lease_until) WHERE ((status)::text = 'RUNNING'::text);

CREATE INDEX executions_log_compaction ON public.executions USING btree (log_compaction_after);

CREATE INDEX executions_log_retention ON public.executions USING btree (finished_at) WHERE ((log_object IS NOT NULL) AND (NOT (log_object ? 'removedAt'::text)));

CREATE INDEX executions_owner ON public.executions USING btree (owner_id, kind, id);

CREATE INDEX executions_queue ON public.executions USING btree (kind, owner_id, queued_at) WHERE ((status)::text = 'QUEUED'::text);

CREATE INDEX executions_requester ON public.executions USING btree (requested_by_id);

CREATE INDEX executions_turns_running ON public.executions USING btree (turn_key) WHERE ((status)::text = 'RUNNING'::text);

CREATE INDEX executions_turns_waiting ON public.executions USING btree (turn_key, queued_at, id) WHERE ((status)::text = 'QUEUED'::text);

CREATE UNIQUE INDEX incidents_automatic ON public.incidents USING btree (automatic_service) WHERE (resolved_at IS NULL);

CREATE INDEX incidents_open ON public.incidents USING btree (id) WHERE (resolved_at IS NULL);

CREATE INDEX item_exports_run ON public.item_exports USING btree (run_id, execution_id);

CREATE INDEX item_exports_stored ON public.item_exports USING btree (expires_at) WHERE (key IS NOT NULL);

CREATE INDEX item_versions_gone ON public.item_versions USING btree (gone_in, id);

CREATE INDEX items_dataset ON public.items USING btree (dataset_id, id);

CREATE INDEX job_runs_dataset ON public.job_runs USING btree (dataset_id);

CREATE INDEX job_runs_job ON public.job_runs USING btree (job_id, execution_id);

CREATE INDEX job_schedules_due ON public.job_schedules USING btree (next_run_at);

CREATE INDEX job_schedules_waiting ON public.job_schedules USING btree (waiting_tick_at);

CREATE INDEX jobs_owner ON public.jobs USING btree (owner_id, id);

CREATE INDEX jobs_tool ON public.jobs USING btree (tool_id);

CREATE INDEX media_owner ON public.media USING btree (owner_id, id);

CREATE INDEX media_pending ON public.media USING btree (upload_until) WHERE ((status)::text = 'PENDING'::text);

CREATE INDEX notifications_user ON public.notifications USING btree (user_id, id);

CREATE INDEX ocr_jobs_batch ON public.ocr_jobs USING btree (batch_id);

CREATE INDEX ocr_jobs_media ON public.ocr_jobs USING btree (media_id, execution_id);

CREATE INDEX one_time_links_user ON public.one_time_links USING btree (user_id, purpose);

CREATE INDEX outbox_messages_due ON public.outbox_messages USING btree (topic, due_at);

CREATE INDEX processes_expires ON public.processes USING btree (expires_at);

CREATE INDEX product_candidates_product ON public.product_candidates USING btree (product_id);

CREATE INDEX product_media_media ON public.product_media USING btree (media_id);

CREATE INDEX product_prices_product ON public.product_prices USING btree (product_id, id);

CREATE INDEX product_sources_job ON public.product_sources USING btree (job_id);

CREATE INDEX product_sources_product ON public.product_sources USING btree (product_id, id);

CREATE INDEX products_attributes ON public.products USING gin (attributes jsonb_path_ops);

CREATE INDEX products_category ON public.products USING btree (category, id);

CREATE INDEX products_name ON public.products USING btree (search_name, id);

CREATE INDEX products_price ON public.products USING btree (currency, price, id);

CREATE INDEX products_price_order ON public.products USING btree (COALESCE(currency, '~'::character varying) COLLATE "C", (((COALESCE(price, (0)::numeric) * (10000)::numeric))::bigint), id);

CREATE INDEX products_search_name ON public.products USING gin (search_name public.gin_trgm_ops);

CREATE INDEX products_search_words ON public.products USING gin (search_words);

CREATE INDEX products_updated ON public.products USING btree (updated_at, id);

CREATE INDEX projects_owner ON public.projects USING btree (owner_id, id);

CREATE INDEX projects_repository ON public.projects USING btree (repository_key);

CREATE INDEX properties_area ON public.properties USING btree (area_order, id);

CREATE INDEX properties_city ON public.properties USING btree (city_key, currency_order, price_order);

CREATE INDEX properties_first_seen ON public.properties USING btree (first_seen_at, id);

CREATE INDEX properties_job ON public.properties USING btree (job_id);

CREATE INDEX properties_location_words ON public.properties USING gin (location_words);

CREATE INDEX properties_place ON public.properties USING gist (place);

CREATE INDEX properties_price ON public.properties USING btree (currency_order, price_order, id);

CREATE INDEX properties_price_changed ON public.properties USING btree (price_changed_at);

CREATE INDEX properties_search_words ON public.properties USING gin (search_words);

CREATE INDEX properties_unit_price ON public.properties USING btree (currency_order, unit_price_order, id);

CREATE INDEX property_prices_property ON public.property_prices USING btree (property_id, seen_at, id);

CREATE INDEX rejected_items_dataset ON public.rejected_items USING btree (dataset_id, id);

CREATE INDEX scans_document ON public.scans USING btree (document_key, execution_id);

CREATE INDEX service_changes_service ON public.service_changes USING btree (service, id);

CREATE INDEX sessions_user ON public.sessions USING btree (user_id);

CREATE INDEX site_aliases_deployment ON public.site_aliases USING btree (deployment_id);

CREATE INDEX site_publications_project ON public.site_publications USING btree (project_id, id);

CREATE INDEX webhook_deliveries_repository ON public.webhook_deliveries USING btree (repository, id);

CREATE INDEX webhook_dispatches_endpoint ON public.webhook_dispatches USING btree (endpoint_id, id);

CREATE INDEX webhook_dispatches_pending ON public.webhook_dispatches USING btree (endpoint_id, next_attempt_at) WHERE ((state)::text = 'PENDING'::text);

CREATE INDEX webhook_dispatches_sending ON public.webhook_dispatches USING btree (endpoint_id) WHERE (lease_until IS NOT NULL);

CREATE INDEX webhook_effects_project ON public.webhook_effects USING btree (project_id, id);

CREATE INDEX webhook_endpoints_active ON public.webhook_endpoints USING btree (owner_id) WHERE (is_active = true);

CREATE INDEX webhook_endpoints_job ON public.webhook_endpoints USING btree (job_id);

CREATE INDEX webhook_endpoints_owner ON public.webhook_endpoints USING btree (owner_id, id);

CREATE INDEX webhook_endpoints_project ON public.webhook_endpoints USING btree (project_id);

CREATE TRIGGER audit_events_append_only BEFORE DELETE OR UPDATE ON public.audit_events FOR EACH ROW EXECUTE FUNCTION public.keep_audit_event();

CREATE TRIGGER audit_events_never_emptied BEFORE TRUNCATE ON public.audit_events FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER deployments_fact AFTER UPDATE OF project_id, build_seconds, artifact_size, uploaded_bytes ON public.deployments FOR EACH ROW WHEN (((old.project_id IS DISTINCT FROM new.project_id) OR (old.build_seconds IS DISTINCT FROM new.build_seconds) OR (old.artifact_size IS DISTINCT FROM new.artifact_size) OR (old.uploaded_bytes IS DISTINCT FROM new.uploaded_bytes))) EXECUTE FUNCTION public.follow_kind();

CREATE TRIGGER deployments_fact_begins AFTER INSERT ON public.deployments FOR EACH ROW EXECUTE FUNCTION public.begin_execution_fact();

CREATE TRIGGER execution_events_append_only BEFORE UPDATE ON public.execution_events FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

CREATE TRIGGER execution_facts_sums AFTER INSERT OR DELETE OR UPDATE ON public.execution_facts FOR EACH ROW EXECUTE FUNCTION public.add_rollup_deltas();

CREATE TRIGGER executions_fact AFTER UPDATE OF status, owner_id ON public.executions FOR EACH ROW WHEN (((new.finished_at IS NOT NULL) OR (new.owner_id <> old.owner_id))) EXECUTE FUNCTION public.follow_execution();

CREATE TRIGGER executions_final BEFORE UPDATE OF status, attempt ON public.executions FOR EACH ROW WHEN (((old.status)::text = ANY (ARRAY[('SUCCEEDED'::character varying)::text, ('FAILED'::character varying)::text, ('CANCELLED'::character varying)::text]))) EXECUTE FUNCTION public.keep_final_status();

CREATE TRIGGER executions_news_created AFTER INSERT ON public.executions FOR EACH ROW WHEN (((new.kind)::text = 'DEPLOYMENT'::text)) EXECUTE FUNCTION public.tell_execution_news();

CREATE TRIGGER executions_news_status AFTER UPDATE OF status ON public.executions FOR EACH ROW WHEN ((((new.status)::text <> (old.status)::text) AND ((new.status)::text <> 'QUEUED'::text) AND ((new.kind)::text = ANY (ARRAY[('CRAWL'::character varying)::text, ('DEPLOYMENT'::character varying)::text, ('SCAN'::character varying)::text, ('OCR'::character varying)::text, ('EXPORT'::character varying)::text])))) EXECUTE FUNCTION public.tell_execution_news();

CREATE TRIGGER executions_tell_created AFTER INSERT ON public.executions FOR EACH ROW WHEN (((new.kind)::text = 'DEPLOYMENT'::text)) EXECUTE FUNCTION public.tell_deployment_status();

CREATE TRIGGER executions_tell_status AFTER UPDATE OF status ON public.executions FOR EACH ROW WHEN ((((new.kind)::text = 'DEPLOYMENT'::text) AND ((new.status)::text <> (old.status)::text))) EXECUTE FUNCTION public.tell_deployment_status();

CREATE TRIGGER job_runs_fact AFTER UPDATE OF tool_id, items_scraped, pages_crawled, bytes_downloaded ON public.job_runs FOR EACH ROW WHEN (((old.tool_id IS DISTINCT FROM new.tool_id) OR (old.items_scraped IS DISTINCT FROM new.items_scraped) OR (old.pages_crawled IS DISTINCT FROM new.pages_crawled) OR (old.bytes_downloaded IS DISTINCT FROM new.bytes_downloaded))) EXECUTE FUNCTION public.follow_kind();

CREATE TRIGGER job_runs_fact_begins AFTER INSERT ON public.job_runs FOR EACH ROW EXECUTE FUNCTION public.begin_execution_fact();

CREATE TRIGGER ocr_jobs_fact AFTER UPDATE OF pages_read ON public.ocr_jobs FOR EACH ROW WHEN ((old.pages_read IS DISTINCT FROM new.pages_read)) EXECUTE FUNCTION public.follow_kind();

CREATE TRIGGER ocr_jobs_fact_begins AFTER INSERT ON public.ocr_jobs FOR EACH ROW EXECUTE FUNCTION public.begin_execution_fact();

CREATE TRIGGER scan_risks_fact_delete AFTER DELETE ON public.scan_risks REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION public.follow_risks();

CREATE TRIGGER scan_risks_fact_insert AFTER INSERT ON public.scan_risks REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION public.follow_risks();

CREATE TRIGGER scans_fact_begins AFTER INSERT ON public.scans FOR EACH ROW EXECUTE FUNCTION public.begin_execution_fact();

CREATE TRIGGER site_publications_append_only BEFORE UPDATE ON public.site_publications FOR EACH ROW EXECUTE FUNCTION public.refuse_change();

ALTER TABLE ONLY public.access_tokens
    ADD CONSTRAINT access_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.candidate_acceptances
    ADD CONSTRAINT candidate_acceptances_accepted_by_id_fkey FOREIGN KEY (accepted_by_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.candidate_acceptances
    ADD CONSTRAINT candidate_acceptances_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.crawl_days
    ADD CONSTRAINT crawl_days_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.crawl_requests
    ADD CONSTRAINT crawl_requests_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.deploy_hooks
    ADD CONSTRAINT deploy_hooks_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.deployment_files
    ADD CONSTRAINT deployment_files_blob_id_fkey FOREIGN KEY (blob_id) REFERENCES public.site_blobs(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.deployment_files
    ADD CONSTRAINT deployment_files_deployment_id_fkey FOREIGN KEY (deployment_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.deployments
    ADD CONSTRAINT deployments_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.document_pages
    ADD CONSTRAINT document_pages_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT environment_variables_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.execution_events
    ADD CONSTRAINT execution_events_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.execution_facts
    ADD CONSTRAINT execution_facts_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_requested_by_id_fkey FOREIGN KEY (requested_by_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.identities
    ADD CONSTRAINT identities_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.incident_updates
    ADD CONSTRAINT incident_updates_incident_id_fkey FOREIGN KEY (incident_id) REFERENCES public.incidents(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.item_exports
    ADD CONSTRAINT item_exports_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.item_exports
    ADD CONSTRAINT item_exports_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.item_versions
    ADD CONSTRAINT item_versions_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.items
    ADD CONSTRAINT items_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_resumed_from_id_fkey FOREIGN KEY (resumed_from_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_tool_id_fkey FOREIGN KEY (tool_id) REFERENCES public.tools(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.job_schedules
    ADD CONSTRAINT job_schedules_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_tool_id_fkey FOREIGN KEY (tool_id) REFERENCES public.tools(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.log_chunks
    ADD CONSTRAINT log_chunks_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.notifications
    ADD CONSTRAINT notifications_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.oauth_connections
    ADD CONSTRAINT oauth_connections_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.ocr_jobs
    ADD CONSTRAINT ocr_jobs_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.ocr_jobs
    ADD CONSTRAINT ocr_jobs_media_id_fkey FOREIGN KEY (media_id) REFERENCES public.media(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.one_time_links
    ADD CONSTRAINT one_time_links_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.output_files
    ADD CONSTRAINT output_files_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.preferences
    ADD CONSTRAINT preferences_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_acceptance_id_fkey FOREIGN KEY (acceptance_id) REFERENCES public.candidate_acceptances(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_decided_by_id_fkey FOREIGN KEY (decided_by_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.product_candidates
    ADD CONSTRAINT product_candidates_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.product_media
    ADD CONSTRAINT product_media_media_id_fkey FOREIGN KEY (media_id) REFERENCES public.media(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.product_media
    ADD CONSTRAINT product_media_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.product_prices
    ADD CONSTRAINT product_prices_changed_by_id_fkey FOREIGN KEY (changed_by_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.product_prices
    ADD CONSTRAINT product_prices_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.product_sources
    ADD CONSTRAINT product_sources_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.product_sources
    ADD CONSTRAINT product_sources_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.property_prices
    ADD CONSTRAINT property_prices_property_id_fkey FOREIGN KEY (property_id) REFERENCES public.properties(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.queue_turns
    ADD CONSTRAINT queue_turns_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT recovery_codes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.rejected_items
    ADD CONSTRAINT rejected_items_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.risk_triage
    ADD CONSTRAINT risk_triage_decided_by_id_fkey FOREIGN KEY (decided_by_id) REFERENCES public.users(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.risk_triage
    ADD CONSTRAINT risk_triage_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.run_hosts
    ADD CONSTRAINT run_hosts_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.scan_risks
    ADD CONSTRAINT scan_risks_scan_id_fkey FOREIGN KEY (scan_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.scans
    ADD CONSTRAINT scans_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.scans
    ADD CONSTRAINT scans_media_id_fkey FOREIGN KEY (media_id) REFERENCES public.media(id) ON DELETE SET NULL;

ALTER TABLE ONLY public.schedule_ticks
    ADD CONSTRAINT schedule_ticks_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.site_aliases
    ADD CONSTRAINT site_aliases_deployment_id_fkey FOREIGN KEY (deployment_id) REFERENCES public.executions(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.site_aliases
    ADD CONSTRAINT site_aliases_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.site_blobs
    ADD CONSTRAINT site_blobs_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.site_publications
    ADD CONSTRAINT site_publications_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_dispatches
    ADD CONSTRAINT webhook_dispatches_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES public.webhook_endpoints(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_effects
    ADD CONSTRAINT webhook_effects_delivery_id_fkey FOREIGN KEY (delivery_id) REFERENCES public.webhook_deliveries(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_effects
    ADD CONSTRAINT webhook_effects_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;

INSERT INTO public.tortoise_migrations (app, name, applied_at) VALUES
    ('models', '0001_initial', now()),
    ('models', '0002_constraints', now()),
    ('models', '0003_invariants', now()),
    ('models', '0004_deployments', now()),
    ('models', '0005_deployment_constraints', now()),
    ('models', '0006_deployment_invariants', now()),
    ('models', '0007_credentials', now()),
    ('models', '0008_credential_constraints', now()),
    ('models', '0009_account_access', now()),
    ('models', '0010_account_access_constraints', now()),
    ('models', '0011_audit_pseudonyms', now()),
    ('models', '0012_scans_media_products', now()),
    ('models', '0013_scans_media_products_constraints', now()),
    ('models', '0014_search', now()),
    ('models', '0015_crawling_columns', now()),
    ('models', '0016_schedules', now()),
    ('models', '0017_schedule_constraints', now()),
    ('models', '0018_crawl_ledger', now()),
    ('models', '0019_crawl_ledger_constraints', now()),
    ('models', '0020_properties', now()),
    ('models', '0021_property_constraints', now()),
    ('models', '0022_property_search', now()),
    ('models', '0023_exports', now()),
    ('models', '0024_export_constraints', now()),
    ('models', '0025_outgoing_webhooks', now()),
    ('models', '0026_outgoing_webhook_constraints', now()),
    ('models', '0027_execution_news', now()),
    ('models', '0028_rollups', now()),
    ('models', '0029_rollup_constraints', now()),
    ('models', '0030_rollup_triggers', now()),
    ('models', '0031_status', now()),
    ('models', '0032_status_constraints', now()),
    ('models', '0033_processes', now()),
    ('models', '0034_retention', now()),
    ('models', '0035_resource_usage', now());
