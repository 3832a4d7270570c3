from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0020_properties")]

    initial = False

    operations = []
