-- A label store of version 1, as `iterdump` of sqlite3 writes it: kept to test that newer programs read it.
PRAGMA application_id = 1380730950;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE annotators (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        folded TEXT NOT NULL UNIQUE, -- the name without the difference of capitals
        simulated INTEGER NOT NULL
    ) STRICT
    ;
INSERT INTO "annotators" VALUES(1,'anna','anna',0);
INSERT INTO "annotators" VALUES(2,'ben','ben',0);
CREATE TABLE assignments (
        annotator INTEGER NOT NULL REFERENCES annotators,
        task INTEGER NOT NULL REFERENCES tasks,
        number INTEGER NOT NULL, -- how many this one is for the annotator
        control INTEGER NOT NULL,
        shown TEXT NOT NULL, -- JSON: order of the answers
        reserved REAL NOT NULL, -- others wait until then, in seconds since 1970; while there is no standing answer
        version INTEGER NOT NULL DEFAULT 0,
        standing INTEGER REFERENCES history, -- NULL: unanswered or taken back
        PRIMARY KEY (annotator, task),
        UNIQUE (annotator, number)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "assignments" VALUES(1,1,1,0,'[2, 1, 0]',1.7952951947078959942e+09,2,2);
INSERT INTO "assignments" VALUES(1,2,2,0,'[2, 1, 0]',1.7952951947399160862e+09,3,5);
INSERT INTO "assignments" VALUES(1,4,3,1,'[2, 0, 1]',1.79529519474855446818e+09,1,6);
INSERT INTO "assignments" VALUES(1,5,4,1,'[2, 0, 1]',1.79529519475940608974e+09,0,NULL);
INSERT INTO "assignments" VALUES(2,1,1,0,'[1, 2, 0]',1795295194.75593,1,7);
INSERT INTO "assignments" VALUES(2,2,2,0,'[1, 2, 0]',1.79529519475827193265e+09,1,8);
CREATE TABLE history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        annotator INTEGER NOT NULL REFERENCES annotators,
        task INTEGER NOT NULL REFERENCES tasks,
        version INTEGER NOT NULL,
        key TEXT, -- NULL: an undo
        undoes INTEGER UNIQUE REFERENCES history, -- NULL: an answer
        answer TEXT, -- JSON
        seconds REAL,
        comment TEXT NOT NULL DEFAULT '',
        flagged INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        time TEXT NOT NULL,
        UNIQUE (annotator, key),
        UNIQUE (annotator, task, version),
        CHECK ((key IS NULL) = (answer IS NULL) AND (key IS NULL) = (undoes IS NOT NULL))
    ) STRICT
    ;
INSERT INTO "history" VALUES(1,1,1,1,'key-0',NULL,'{"overall":[1,2,3]}',60.0,'first',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(2,1,1,2,'key-1',NULL,'{"overall":[3,2,1]}',1.0,'',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(3,1,2,1,'key-2',NULL,'{"overall":[1,2,3]}',5.0,'',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(4,1,2,2,NULL,3,NULL,NULL,'',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(5,1,2,3,'key-3',NULL,'{"overall":[1,1,2]}',2.0,'',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(6,1,4,1,'key-4',NULL,'{"overall":[1,2,3]}',4.0,'',0,0,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(7,2,1,1,'key-5',NULL,'{}',2.5,'',0,1,'2026-11-21T20:36:34Z');
INSERT INTO "history" VALUES(8,2,2,1,'key-6',NULL,'{"overall":[1,2,3]}',2.5,'',1,0,'2026-11-21T20:36:34Z');
CREATE TABLE settings (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        title TEXT NOT NULL,
        questions TEXT NOT NULL, -- JSON
        guidelines TEXT NOT NULL,
        overlap INTEGER NOT NULL CHECK (overlap >= 1),
        control_share REAL NOT NULL CHECK (control_share BETWEEN 0 AND 0.5),
        seed INTEGER NOT NULL,
        paused INTEGER NOT NULL DEFAULT 0
    ) STRICT
    ;
INSERT INTO "settings" VALUES(1,'A project','[{"name":"overall","kind":"ranking","text":"Which is better?"}]','# How',2,0.5,7,0);
CREATE TABLE tasks (
        number INTEGER PRIMARY KEY, -- in the order in which they were added
        id TEXT NOT NULL UNIQUE,
        prompt TEXT NOT NULL, -- JSON
        answers TEXT NOT NULL, -- JSON
        control TEXT, -- JSON; NULL: an ordinary task
        source TEXT,
        place INTEGER NOT NULL, -- in the shuffled queue
        labels INTEGER NOT NULL DEFAULT 0, -- standing answers that are not skipped
        judged INTEGER NOT NULL DEFAULT 0 -- standing answers, skipped ones too
    ) STRICT
    ;
INSERT INTO "tasks" VALUES(1,'t0','[{"role":"user","content":"Prompt of t0"}]','[["t0, answer 0","model-0"],["t0, answer 1","model-1"],["t0, answer 2","model-2"]]',NULL,'test',98642272517945650,1,2);
INSERT INTO "tasks" VALUES(2,'t1','[{"role":"user","content":"Prompt of t1"}]','[["t1, answer 0","model-0"],["t1, answer 1","model-1"],["t1, answer 2","model-2"]]',NULL,'test',1674968930033493030,2,2);
INSERT INTO "tasks" VALUES(3,'t2','[{"role":"user","content":"Prompt of t2"}]','[["t2, answer 0","model-0"],["t2, answer 1","model-1"],["t2, answer 2","model-2"]]',NULL,'test',1787407189555952722,0,0);
INSERT INTO "tasks" VALUES(4,'c0','[{"role":"user","content":"Prompt of c0"}]','[["c0, answer 0","model-0"],["c0, answer 1","model-1"],["c0, answer 2","model-2"]]','{"overall":[1,2,3]}','test',28247469711633441,1,1);
INSERT INTO "tasks" VALUES(5,'c1','[{"role":"user","content":"Prompt of c1"}]','[["c1, answer 0","model-0"],["c1, answer 1","model-1"],["c1, answer 2","model-2"]]','{"overall":[1,2,3]}','test',640251761065975189,0,0);
CREATE TABLE tokens (
        hash TEXT PRIMARY KEY, -- SHA-256 of the token
        name TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('annotator', 'admin')),
        kind TEXT NOT NULL CHECK (kind IN ('login', 'session')),
        expires REAL NOT NULL -- seconds since 1970
    ) STRICT
    ;
CREATE INDEX queue ON tasks (labels DESC, place) WHERE control IS NULL;
CREATE INDEX begun ON tasks (labels) WHERE control IS NULL AND judged > 0;
CREATE INDEX controls ON tasks (id) WHERE control IS NOT NULL;
CREATE TRIGGER history_stays BEFORE UPDATE ON history
    BEGIN SELECT RAISE(ABORT, 'history is only ever added to'); END;
CREATE TRIGGER history_is_kept BEFORE DELETE ON history
    BEGIN SELECT RAISE(ABORT, 'history is only ever added to'); END;
CREATE INDEX open ON assignments (annotator, reserved) WHERE standing IS NULL;
CREATE INDEX given_controls ON assignments (annotator) WHERE control = 1;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('history',8);
COMMIT;
