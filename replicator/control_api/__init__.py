"""The JSON APIs of Amazon ECR and ECR Public."""
