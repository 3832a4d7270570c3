from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint, UniqueConstraint


class Migration(migrations.Migration):
    dependencies = [("models", "0012_scans_media_products")]

    initial = False

    operations = [
        ops.AddConstraint(
            model_name="DocumentPage",
            constraint=UniqueConstraint(fields=("job_id", "number"), name="document_pages_number"),
        ),
        ops.AddConstraint(
            model_name="DocumentPage",
            constraint=CheckConstraint(check="number > 0", name="document_pages_number_check"),
        ),
        ops.AddConstraint(
            model_name="Media",
            constraint=CheckConstraint(check="status IN ('PENDING', 'READY', 'REJECTED')", name="media_status_check"),
        ),
        ops.AddConstraint(
            model_name="Media",
            constraint=CheckConstraint(check="(status = 'READY') = (kind IS NOT NULL)", name="media_kind_check"),
        ),
        ops.AddConstraint(
            model_name="Media",
            constraint=CheckConstraint(
                check="(status = 'PENDING') = (upload_until IS NOT NULL)", name="media_upload_check"
            ),
        ),
        ops.AddConstraint(
            model_name="Media",
            constraint=CheckConstraint(check="size >= 0", name="media_size_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=UniqueConstraint(fields=("slug",), name="products_slug"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=UniqueConstraint(fields=("sku_key",), name="products_sku"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=UniqueConstraint(fields=("ean",), name="products_ean"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="price >= 0", name="products_price_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="stock >= 0", name="products_stock_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="(price IS NULL) = (currency IS NULL)", name="products_money_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="currency ~ '^[A-Z]{3}$'", name="products_currency_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="ean ~ '^([0-9]{8}|[0-9]{12,14})$'", name="products_ean_check"),
        ),
        ops.AddConstraint(
            model_name="Product",
            constraint=CheckConstraint(check="(sku IS NULL) = (sku_key IS NULL)", name="products_sku_check"),
        ),
        ops.AddConstraint(
            model_name="ProductCandidate",
            constraint=UniqueConstraint(fields=("job_id", "position"), name="product_candidates_position"),
        ),
        ops.AddConstraint(
            model_name="ProductCandidate",
            constraint=CheckConstraint(
                check="state IN ('PENDING', 'ACCEPTED', 'REJECTED')", name="candidates_state_check"
            ),
        ),
        ops.AddConstraint(
            model_name="ProductCandidate",
            constraint=CheckConstraint(check="confidence BETWEEN 0 AND 1", name="candidates_confidence_check"),
        ),
        ops.AddConstraint(
            model_name="ProductCandidate",
            constraint=CheckConstraint(
                check="(state = 'PENDING') = (decided_at IS NULL)", name="candidates_decided_check"
            ),
        ),
        ops.AddConstraint(
            model_name="ProductMedia",
            constraint=UniqueConstraint(fields=("product_id", "media_id"), name="product_media_key"),
        ),
        ops.AddConstraint(
            model_name="RiskTriage",
            constraint=UniqueConstraint(fields=("owner_id", "document_key", "fingerprint"), name="risk_triage_key"),
        ),
        ops.AddConstraint(
            model_name="RiskTriage",
            constraint=CheckConstraint(
                check="state IN ('OPEN', 'ACCEPTED', 'MITIGATED', 'FALSE_POSITIVE')", name="risk_triage_state_check"
            ),
        ),
        ops.AddConstraint(
            model_name="Scan",
            constraint=CheckConstraint(
                check="num_nonnulls(text, file_key) + (media_id IS NOT NULL)::int <= 1", name="scans_input_check"
            ),
        ),
        ops.AddConstraint(
            model_name="Scan",
            constraint=CheckConstraint(check="source IN ('LLM', 'MODEL')", name="scans_source_check"),
        ),
        ops.AddConstraint(
            model_name="ScanRisk",
            constraint=UniqueConstraint(fields=("scan_id", "position"), name="scan_risks_position"),
        ),
        ops.AddConstraint(
            model_name="ScanRisk",
            constraint=CheckConstraint(
                check="severity IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')", name="scan_risks_severity_check"
            ),
        ),
        ops.AddConstraint(
            model_name="ScanRisk",
            constraint=CheckConstraint(check='("start" IS NULL) = ("end" IS NULL)', name="scan_risks_span_check"),
        ),
        ops.AlterModelOptions(
            name="OcrJob",
            options={
                "table": "ocr_jobs",
                "app": "models",
                "indexes": [
                    Index(fields=["media_id", "execution_id"], name="ocr_jobs_media"),
                    Index(fields=["batch_id"], name="ocr_jobs_batch"),
                ],
                "pk_attr": "execution_id",
                "table_description": "What reading a document adds to its execution. `filename` stays when the medium goes.",
            },
        ),
        ops.AlterModelOptions(
            name="Scan",
            options={
                "table": "scans",
                "app": "models",
                "constraints": [
                    CheckConstraint(
                        check="num_nonnulls(text, file_key) + (media_id IS NOT NULL)::int <= 1",
                        name="scans_input_check",
                    ),
                    CheckConstraint(check="source IN ('LLM', 'MODEL')", name="scans_source_check"),
                ],
                "indexes": [Index(fields=["document_key", "execution_id"], name="scans_document")],
                "pk_attr": "execution_id",
                "table_description": "What a scan adds to its execution: its input (a text, a medium or a file of its own) and where it came from.",
            },
        ),
    ]
