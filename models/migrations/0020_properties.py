from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0019_crawl_ledger_constraints")]

    initial = False

    operations = []
