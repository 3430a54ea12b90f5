"""The pages that show an annotation run: reads its folder, and neither locks nor writes it."""
