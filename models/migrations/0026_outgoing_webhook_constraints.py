from tortoise import migrations


class Migration(migrations.Migration):
    dependencies = [("models", "0025_outgoing_webhooks")]

    initial = False

    operations = []
