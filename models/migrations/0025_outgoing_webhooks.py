from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0024_export_constraints")]

    initial = False

    operations = []
