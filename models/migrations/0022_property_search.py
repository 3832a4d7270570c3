"""Properties: what they are found and sorted by.

The columns are generated, so they cannot differ from what they are made of. Whole numbers stand for exact ones in
orders: in ten-thousandths, what is unknown last. No index holds when a listing was seen last, and pages have room to
spare, so that seeing an unchanged listing again touches no index.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_FORWARD = [
    """
    ALTER TABLE properties
        ADD COLUMN price_per_square_metre numeric(24, 4)
            GENERATED ALWAYS AS (round(price / square_metres, 4)) STORED,
        ADD COLUMN place point GENERATED ALWAYS AS (point(longitude, latitude)) STORED,
        ADD COLUMN city_key text GENERATED ALWAYS AS (search_form(city)) STORED,
        ADD COLUMN region_key text GENERATED ALWAYS AS (search_form(region)) STORED,
        ADD COLUMN country_key text GENERATED ALWAYS AS (search_form(country)) STORED,
        ADD COLUMN currency_order text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(currency, '~')) STORED,
        ADD COLUMN price_order bigint NOT NULL
            GENERATED ALWAYS AS (coalesce((price * 10000)::bigint, 9223372036854775807)) STORED,
        ADD COLUMN area_order bigint NOT NULL
            GENERATED ALWAYS AS (coalesce((square_metres * 10000)::bigint, 9223372036854775807)) STORED,
        ADD COLUMN unit_price_order bigint NOT NULL GENERATED ALWAYS AS (
            CASE WHEN price / square_metres < 900000000000000 THEN (price / square_metres * 10000)::bigint
                 ELSE 9223372036854775807 END
        ) STORED,
        ADD COLUMN location_words tsvector NOT NULL GENERATED ALWAYS AS (product_words(
            coalesce(street, '') || ' ' || coalesce(city, '') || ' ' || coalesce(region, '')
            || ' ' || coalesce(postal_code, '') || ' ' || coalesce(country, '')
        )) STORED,
        ADD COLUMN search_words tsvector NOT NULL GENERATED ALWAYS AS (product_words(
            title || ' ' || source_id || ' ' || coalesce(property_type, '') || ' ' || coalesce(street, '')
            || ' ' || coalesce(city, '') || ' ' || coalesce(region, '') || ' ' || coalesce(postal_code, '')
            || ' ' || left(description, 4000)
        )) STORED
    """,
    "ALTER TABLE properties SET (fillfactor = 85)",
    "CREATE INDEX properties_price ON properties (currency_order, price_order, id)",
    "CREATE INDEX properties_unit_price ON properties (currency_order, unit_price_order, id)",
    "CREATE INDEX properties_area ON properties (area_order, id)",
    "CREATE INDEX properties_city ON properties (city_key, currency_order, price_order)",
    "CREATE INDEX properties_place ON properties USING gist (place)",
    "CREATE INDEX properties_location_words ON properties USING gin (location_words)",
    "CREATE INDEX properties_search_words ON properties USING gin (search_words)",
]

_BACKWARD = [
    *(
        f"DROP INDEX properties_{name}"
        for name in ("search_words", "location_words", "place", "city", "area", "unit_price", "price")
    ),
    "ALTER TABLE properties RESET (fillfactor)",
    """
    ALTER TABLE properties
        DROP COLUMN search_words, DROP COLUMN location_words, DROP COLUMN unit_price_order, DROP COLUMN area_order,
        DROP COLUMN price_order, DROP COLUMN currency_order, DROP COLUMN country_key, DROP COLUMN region_key,
        DROP COLUMN city_key, DROP COLUMN place, DROP COLUMN price_per_square_metre
    """,
]


class Migration(migrations.Migration):
    """Columns and indexes."""

    dependencies = [("models", "0021_property_constraints")]
    operations = [ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD)]
