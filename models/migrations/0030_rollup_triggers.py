from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0029_rollup_constraints")]

    initial = False

    operations = []
