from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0020_properties")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="ProductSource",
            constraint=UniqueConstraint(fields=("source", "source_id"), name="product_sources_listing"),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=UniqueConstraint(fields=("owner_id", "source", "source_id"), name="properties_listing"),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(check="price >= 0", name="properties_price_check"),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(
                check="currency IS NULL OR (currency ~ '^[A-Z]{3}$' AND price IS NOT NULL)",
                name="properties_currency_check",
            ),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(
                check="(area_unit IS NULL) = (square_metres IS NULL) AND (area IS NOT NULL OR area_unit IS NULL)",
                name="properties_area_check",
            ),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(check="area > 0 AND square_metres > 0", name="properties_area_size_check"),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(
                check="area_unit IN ('SQUARE_FEET', 'SQUARE_METRES', 'ACRES', 'HECTARES')",
                name="properties_area_unit_check",
            ),
        ),
        ops.AddConstraint(
            model_name="Property",
            constraint=CheckConstraint(
                check="(latitude IS NULL) = (longitude IS NULL) AND latitude BETWEEN -90 AND 90"
                " AND longitude BETWEEN -180 AND 180",
                name="properties_place_check",
            ),
        ),
    ]
