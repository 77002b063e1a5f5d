"""What is kept: tables, repositories, migrations and the files of received instances."""
