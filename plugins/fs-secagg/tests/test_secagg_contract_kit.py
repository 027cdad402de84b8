"""The contract suites on the stages of this plugin."""

from fs_secagg.additive import SecretSharing
from fs_secagg.mechanism import SecAgg

from fscore.testing import PathContract, PrivacyContract


class TestSecAgg(PathContract, PrivacyContract):
    def make(self):
        return SecAgg(max_weight=20)


class TestSecretSharing(PathContract, PrivacyContract):
    def make(self):
        return SecretSharing(max_weight=20)
