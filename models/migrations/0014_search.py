"""Search: what products and pages are found by.

Letters are compared without case and accents, so that `cafe` finds `Café`; trigrams bear a typing error. The columns are
generated, which takes an immutable function: the dictionary of accents is named, so the function is immutable as long as
nobody edits that dictionary. Both extensions are trusted ones: the owner of a database may add them.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    "CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS unaccent SCHEMA public",
    """
    CREATE FUNCTION search_form(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT lower(public.unaccent('public.unaccent'::regdictionary, $1))
    $$
    """,
    """
    ALTER TABLE products
        ADD COLUMN search_name text GENERATED ALWAYS AS (search_form(name)) STORED,
        ADD COLUMN search_text text GENERATED ALWAYS AS (search_form(
            name || ' ' || coalesce(sku, '') || ' ' || coalesce(ean, '') || ' ' || coalesce(category, '')
            || ' ' || left(description, 4000)
        )) STORED
    """,
    "CREATE INDEX products_search_name ON products USING gin (search_name public.gin_trgm_ops)",
    "CREATE INDEX products_search_text ON products USING gin (search_text public.gin_trgm_ops)",
    "CREATE INDEX products_search_words ON products USING gin (to_tsvector('simple', search_text))",
    """
    ALTER TABLE document_pages
        ADD COLUMN search_words tsvector GENERATED ALWAYS AS (
            to_tsvector('simple', search_form(left(text, 200000)))
        ) STORED
    """,
    "CREATE INDEX document_pages_search_words ON document_pages USING gin (search_words)",
]

_BACKWARD = [
    "DROP INDEX document_pages_search_words",
    "ALTER TABLE document_pages DROP COLUMN search_words",
    "DROP INDEX products_search_words",
    "DROP INDEX products_search_text",
    "DROP INDEX products_search_name",
    "ALTER TABLE products DROP COLUMN search_text, DROP COLUMN search_name",
    "DROP FUNCTION search_form(text)",
]


class Migration(migrations.Migration):
    """Columns, indexes and the function that both need."""

    dependencies = [("models", "0013_scans_media_products_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
