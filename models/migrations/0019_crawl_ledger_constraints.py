from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0018_crawl_ledger")]

    initial = False

    operations = []
