from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0021_property_constraints")]

    initial = False

    operations = []
