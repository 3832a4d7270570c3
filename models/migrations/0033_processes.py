from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0032_status_constraints")]

    initial = False

    operations = []
