"""What Mage's pipelines and callbacks can do, tried here row by row."""
