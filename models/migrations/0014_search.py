"""Search: what products and pages are found by.

Letters are compared without case and accents, so that `cafe` finds `Café`; trigrams bear a typing error; words are kept
as they are and as their Spanish and English stems, so that `camiseta` finds `Camisetas`. The columns are generated,
which takes immutable functions: the dictionary of accents is named, so they are immutable as long as nobody edits that
dictionary. Both extensions are trusted ones: the owner of a database may add them.
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
    # Names are written out, for a restored dump has no search path. Punctuation parts words: 3.5mm is 3 and 5mm.
    r"""
    CREATE FUNCTION product_words(text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT strip(
            to_tsvector('pg_catalog.simple', form) || to_tsvector('pg_catalog.spanish', form)
            || to_tsvector('pg_catalog.english', form)
        )
        FROM (
            SELECT regexp_replace(
                lower(public.unaccent('public.unaccent'::regdictionary, $1)), '[!-/:-@\[-`{-~]+', ' ', 'g'
            ) AS form
        ) AS plain
    $$
    """,
    """
    ALTER TABLE products
        ADD COLUMN search_name text GENERATED ALWAYS AS (search_form(name)) STORED,
        ADD COLUMN search_words tsvector GENERATED ALWAYS AS (product_words(
            name || ' ' || coalesce(sku, '') || ' ' || coalesce(ean, '') || ' ' || coalesce(category, '')
            || ' ' || left(description, 4000)
        )) STORED
    """,
    "CREATE INDEX products_search_name ON products USING gin (search_name public.gin_trgm_ops)",
    "CREATE INDEX products_search_words ON products USING gin (search_words)",
    "CREATE INDEX products_attributes ON products USING gin (attributes jsonb_path_ops)",
    "CREATE INDEX products_name ON products (search_name, id)",
    """
    CREATE INDEX products_price_order ON products
        ((coalesce(currency, '~') COLLATE "C"), ((coalesce(price, 0) * 10000)::bigint), id)
    """,
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
    "DROP INDEX products_price_order",
    "DROP INDEX products_name",
    "DROP INDEX products_attributes",
    "DROP INDEX products_search_words",
    "DROP INDEX products_search_name",
    "ALTER TABLE products DROP COLUMN search_words, DROP COLUMN search_name",
    "DROP FUNCTION product_words(text)",
    "DROP FUNCTION search_form(text)",
]


class Migration(migrations.Migration):
    """Columns, indexes and the functions that they need."""

    dependencies = [("models", "0013_scans_media_products_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
