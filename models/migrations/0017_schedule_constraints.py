from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0016_schedules")]

    initial = False

    operations = []
