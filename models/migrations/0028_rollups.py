from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0027_execution_news")]

    initial = False

    operations = []
