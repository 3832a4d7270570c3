from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0023_exports")]

    initial = False

    operations = []
