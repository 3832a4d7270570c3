from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0022_property_search")]

    initial = False

    operations = []
