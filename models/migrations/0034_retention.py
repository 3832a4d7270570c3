from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0033_processes")]

    initial = False

    operations = []
