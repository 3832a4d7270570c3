from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0026_outgoing_webhook_constraints")]

    initial = False

    operations = []
