from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0028_rollups")]

    initial = False

    operations = []
