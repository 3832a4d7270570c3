from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0031_status")]

    initial = False

    operations = []
