from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0017_schedule_constraints")]

    initial = False

    operations = []
