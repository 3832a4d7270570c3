from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0030_rollup_triggers")]

    initial = False

    operations = []
