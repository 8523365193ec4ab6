# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: operations on names that were carried out, and whose answers were lost."""

import nfs


class Names(nfs.NfsCase):
    def test_answer_lost(self):
        """One file, under its name, and no other."""
        for call in ("CREATE", "SETATTR", "LINK", "REMOVE"):
            for where in ("before", "after", "half"):
                with self.at(call=call, where=where):
                    server = self.serve_target(f"{call} 1: cut {where}")
                    self.write_copy(server)
                    self.fired(server)
                    self.stored(server)
                    self.assertEqual(self.rewrites(server), set())

    def test_create_is_recognised(self):
        server = self.serve_target("CREATE 1: cut after")
        self.write_copy(server)
        self.stored(server)
        first, second = server.log("CREATE")
        self.assertEqual((first["name"], first["mode"]), (second["name"], "EXCLUSIVE"))
        self.assertEqual((first["status"], second["status"]), ("OK", "OK"))

    def test_rename(self):
        for where in ("before", "after", "half"):
            with self.at(where=where):
                server = self.serve_old(f"RENAME 1: cut {where}")
                self.write_copy(server, "--overwrite")
                self.fired(server)
                self.stored(server)

    def test_lost_twice(self):
        for call in ("LINK", "REMOVE", "CREATE"):
            with self.at(call=call):
                server = self.serve_target(f"{call} 1-2: cut after")
                self.write_copy(server)
                self.fired(server, 2)
                self.stored(server)

    def test_somebody_else_was_faster(self):
        """The name is taken while we copy: that file stays, and ours goes."""
        self.image("image", nfs.SIZE)
        self.image("other", nfs.CHUNK)
        # Theirs comes into being while our COMMIT is kept; they know of no lock.
        server = self.serve("COMMIT 1: until put 1")
        run = self.begin("copy", "-q", "--journal", "none", "--request-size", nfs.CHUNK, "image", self.url(server))
        self.wait_until(lambda: server.log("COMMIT"), "the COMMIT has come")
        server.command("put /export/image=other")
        result = self.finish(run)
        self.assertEqual(result.status, 3, result)
        self.says(result, "made by someone else")
        self.stored(server, original="other")

    def test_mode(self):
        """A repeated CREATE is followed by its SETATTR: the mode is right."""
        server = self.serve_target("CREATE 1: cut after", "SETATTR 1: cut before")
        self.write_copy(server)
        self.stored(server)
        modes = [entry["set"]["mode"] for entry in server.log("SETATTR")
                 if entry["status"] == "OK" and "mode" in entry["set"]]
        self.assertEqual(len(set(modes)), 1, modes)
        self.assertNotEqual(modes[0], 0)
