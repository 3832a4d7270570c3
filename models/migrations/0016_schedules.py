from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0015_crawling_columns")]

    initial = False

    operations = []
