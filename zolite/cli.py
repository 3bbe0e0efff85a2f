def main() -> None:
    print("zolite")
