"""The words: tables to read, parsed once into typed entries.

Every English form has one French translation, apart from words that their context tells apart
(know someone, know that). Chosen so: no verb whose past equals its base (put, read), no noun
whose plural equals its singular (sheep), no form that is noun and verb (dream, paint). Common
words come first in a row; the generator prefers them a little.
"""

from seq2seq.data.grammar.orthography import row

NOUNS = {
    "person": """
        man/men = un homme, woman/women = une femme, child/children = un enfant,
        friend = un ami, girl = une fille, boy = un garçon, teacher = un professeur,
        doctor = un médecin, student = un étudiant, neighbour = un voisin, mother = une mère,
        father = un père, brother = un frère, sister = une sœur, king = un roi,
        queen = une reine, writer = un écrivain, singer = un chanteur, director = un directeur,
        actress = une actrice, actor = un acteur, nurse = une infirmière, lawyer = un avocat,
        waitress = une serveuse, waiter = un serveur, judge = un juge, mayor = un maire,
        minister = un ministre, president = un président, engineer = un ingénieur,
        worker = un ouvrier, farmer = un agriculteur, baker = un boulanger,
        butcher = un boucher, gardener = un jardinier, soldier = un soldat, sailor = un marin,
        captain = un capitaine, hero/heroes = un héros, artist = un artiste,
        painter = un peintre, musician = un musicien, dancer = une danseuse,
        scientist = un scientifique, tourist = un touriste, traveller = un voyageur,
        merchant = un marchand, thief/thieves = un voleur, witness = un témoin,
        colleague = un collègue, boss = un patron, secretary = une secrétaire,
        grandmother = une grand-mère/grands-mères, grandfather = un grand-père/grands-pères,
        uncle = un oncle, aunt = une tante, cousin = un cousin, baby = un bébé, lady = une dame,
        journalist = un journaliste, photographer = un photographe, driver = un chauffeur,
        customer = un client, pupil = un élève, heir = un héritier, inhabitant = un habitant,
        prince = un prince, princess = une princesse, pilot = un pilote,
        carpenter = un charpentier, dentist = un dentiste, hostess = une hôtesse""",
    "animal": """
        dog = un chien, cat = un chat, horse = un cheval, bird = un oiseau, cow = une vache,
        mouse/mice = une souris, rabbit = un lapin, wolf/wolves = un loup, fox = un renard,
        lion = un lion, elephant = un éléphant, owl = un hibou/hiboux, donkey = un âne,
        hen = une poule, pig = un cochon, goat = une chèvre, monkey = un singe,
        goose/geese = une oie, spider = une araignée, bee = une abeille,
        butterfly = un papillon, snake = un serpent, tortoise = une tortue,
        squirrel = un écureuil, eagle = un aigle, swan = un cygne, frog = une grenouille,
        hamster = un hamster, hedgehog = un hérisson, ant = une fourmi, tiger = un tigre,
        camel = un chameau""",
    "food": """
        apple = une pomme, cake = un gâteau, egg = un œuf,
        potato/potatoes = une pomme de terre/pommes de terre, carrot = une carotte,
        tomato/tomatoes = une tomate, sandwich = un sandwich/sandwichs, pizza = une pizza,
        salad = une salade, soup = une soupe, strawberry = une fraise, cherry = une cerise,
        pear = une poire, lemon = un citron, onion = un oignon, mushroom = un champignon,
        bean = un haricot, biscuit = un biscuit, pancake = une crêpe, omelette = une omelette,
        nut = une noix, pineapple = un ananas, apricot = un abricot, tart = une tarte,
        sausage = une saucisse""",
    "mass": """
        bread = un pain, cheese = un fromage, meat = une viande, fish = un poisson,
        rice = un riz, butter = un beurre, honey = un miel, chocolate = un chocolat,
        jam = une confiture, ham = un jambon, chicken = un poulet, sugar = un sucre,
        salt = un sel, flour = une farine, oil = une huile""",
    "drink": """
        water = une eau, coffee = un café, wine = un vin, milk = un lait, tea = un thé,
        beer = une bière, juice = un jus, lemonade = une limonade""",
    "object": """
        key = une clé, bag = un sac, pen = un stylo, pencil = un crayon,
        knife/knives = un couteau, fork = une fourchette, spoon = une cuillère,
        plate = une assiette, bottle = une bouteille, cup = une tasse, suitcase = une valise,
        umbrella = un parapluie, lamp = une lampe, candle = une bougie, mirror = un miroir,
        clock = une horloge, telephone = un téléphone, computer = un ordinateur,
        guitar = une guitare, piano = un piano, violin = un violon, drum = un tambour,
        ball = un ballon, doll = une poupée, toy = un jouet, coin = une pièce, axe = une hache,
        harp = une harpe, hammer = un marteau, needle = une aiguille, basket = un panier,
        box = une boîte, vase = un vase, flag = un drapeau, jewel = un bijou/bijoux,
        ring = une bague, necklace = un collier, ticket = un billet, tool = un outil,
        blanket = une couverture, pillow = un oreiller, towel = une serviette,
        weapon = une arme, sword = une épée, wheel = une roue, ladder = une échelle""",
    "clothing": """
        hat = un chapeau, coat = un manteau, shirt = une chemise, shoe = une chaussure,
        skirt = une jupe, boot = une botte, scarf/scarves = une écharpe, glove = un gant,
        sock = une chaussette, uniform = un uniforme, suit = un costume, belt = une ceinture,
        jacket = une veste, cap = une casquette, raincoat = un imperméable""",
    "furniture": """
        table = une table, chair = une chaise, bed = un lit, door = une porte,
        window = une fenêtre, armchair = un fauteuil, sofa = un canapé, wardrobe = une armoire,
        desk = un bureau, carpet = un tapis, shelf/shelves = une étagère, bench = un banc,
        curtain = un rideau, drawer = un tiroir, oven = un four, fridge = un réfrigérateur""",
    "vehicle": """
        car = une voiture, bicycle = un vélo, train = un train, boat = un bateau,
        plane = un avion, truck = un camion, ship = un navire, motorcycle = une moto,
        helicopter = un hélicoptère, tractor = un tracteur, taxi = un taxi,
        ambulance = une ambulance""",
    "place": """
        house = une maison, garden = un jardin, city = une ville, school = une école,
        kitchen = une cuisine, museum = un musée, market = un marché, church = une église,
        hospital = un hôpital, hotel = un hôtel, restaurant = un restaurant, station = une gare,
        theatre = un théâtre, library = une bibliothèque, castle = un château,
        factory = une usine, office = un bureau, shop = une boutique, bakery = une boulangerie,
        airport = un aéroport, harbour = un port, park = un parc, village = un village,
        street = une rue, tower = une tour, farm = une ferme, prison = une prison,
        palace = un palais, cinema = un cinéma, university = une université, bank = une banque,
        forest = une forêt, valley = une vallée, desert = un désert, cave = une grotte,
        courtyard = une cour, cellar = une cave, attic = un grenier, bedroom = une chambre,
        bathroom = une salle de bains/salles de bains, region = une région, country = un pays,
        inn = une auberge, temple = un temple, stadium = un stade, zoo = un zoo,
        hangar = un hangar, hall = un hall, field = un champ""",
    "text": """
        book = un livre, letter = une lettre, newspaper = un journal, story = une histoire,
        poem = un poème, novel = un roman, film = un film, song = une chanson,
        article = un article, message = un message, speech = un discours,
        portrait = un portrait, dictionary = un dictionnaire, magazine = un magazine,
        poster = une affiche, map = une carte, contract = un contrat, lesson = une leçon,
        legend = une légende, notebook = un cahier, opera = un opéra, tale = un conte,
        translation = une traduction""",
    "idea": """
        idea = une idée, problem = un problème, law = une loi, project = un projet,
        decision = une décision, mistake = une erreur, success = un succès, war = une guerre,
        price = un prix, objective = un objectif, crisis/crises = une crise, danger = un danger,
        event = un événement, theory = une théorie, method = une méthode,
        solution = une solution, agreement = un accord, reform = une réforme,
        advantage = un avantage, difficulty = une difficulté, reason = une raison,
        opinion = une opinion, custom = une coutume, discovery = une découverte,
        invention = une invention, opportunity = une occasion, result = un résultat,
        rule = une règle, memory = un souvenir, adventure = une aventure,
        accident = un accident, experiment = une expérience, conflict = un conflit,
        proposal = une proposition, budget = un budget, policy = une politique,
        principle = un principe, strategy = une stratégie, task = une tâche, area = une zone""",
    "group": """
        company = une entreprise, government = un gouvernement, team = une équipe,
        family = une famille, committee = un comité, party = un parti, union = un syndicat,
        army = une armée, council = un conseil, association = une association,
        commission = une commission, orchestra = un orchestre, club = un club,
        ministry = un ministère, agency = une agence, jury = un jury, tribe = une tribu,
        parliament = un parlement""",
    "nature": """
        tree = un arbre, flower = une fleur, mountain = une montagne, river = une rivière,
        sea = une mer, star = une étoile, moon = une lune, island = une île, lake = un lac,
        root = une racine, stone = une pierre, cloud = un nuage, hill = une colline,
        oak = un chêne, tulip = une tulipe, branch = une branche, storm = un orage,
        wave = une vague, rainbow = un arc-en-ciel/arcs-en-ciel, beach = une plage,
        bridge = un pont""",
}
"""English[/irregular plural] = un or une for the gender, French[/irregular plural]."""

COUNTABLE = "person animal food object clothing furniture vehicle place text nature"

ADJECTIVES_BEFORE = {
    COUNTABLE: """
        small = petit, big = grand, old = vieux/vieille/vieil, new = nouveau/nouvelle/nouvel,
        beautiful = beau/belle/bel, pretty = joli""",
    f"{COUNTABLE} mass drink idea group": """
        good = bon, bad = mauvais""",
    "idea group": "new = nouveau/nouvelle/nouvel, old = vieux/vieille/vieil, big = grand",
    "person animal": "young = jeune, fat = gros/grosse",
    "text idea": "long = long/longue, short = court",
    "nature": "high = haut, vast = vaste",
}
"""The closed list that stands before its noun: masculine[/feminine[/masculine before vowel]]."""

ADJECTIVES_AFTER = {
    "person": """
        rich = riche, poor = pauvre, famous = célèbre, intelligent = intelligent, shy = timide,
        lazy = paresseux, polite = poli, honest = honnête, elegant = élégant, sick = malade,
        generous = généreux, ambitious = ambitieux, discreet = discret/discrète, naive = naïf,
        furious = furieux, mad = fou/folle, talkative = bavard,
        hard-working = travailleur/travailleuse, worried = inquiet/inquiète, skilful = habile,
        blind = aveugle, deaf = sourd""",
    "person animal": """
        happy = heureux, sad = triste, tired = fatigué, strong = fort, weak = faible,
        curious = curieux, patient = patient, jealous = jaloux/jalouse, proud = fier,
        brave = courageux, calm = calme, cruel = cruel, nervous = nerveux, wise = sage,
        loyal = loyal, active = actif, hungry = affamé, lonely = solitaire""",
    "animal": "wild = sauvage, fast = rapide, fierce = féroce",
    "object clothing furniture vehicle animal": """
        red = rouge, blue = bleu, green = vert, white = blanc/blanche, black = noir,
        yellow = jaune, grey = gris, brown = brun""",
    "object clothing furniture": """
        heavy = lourd, clean = propre, dirty = sale, precious = précieux, solid = solide,
        purple = violet/violette, pink = rose, golden = doré""",
    "object furniture": """
        round = rond, fragile = fragile, empty = vide, full = plein, flat = plat,
        pointed = pointu""",
    "object clothing furniture vehicle place": "modern = moderne, expensive = cher, useful = utile",
    "clothing": "dry = sec/sèche, wet = mouillé, soft = doux/douce, thick = épais/épaisse",
    "food mass": """
        delicious = délicieux, fresh = frais/fraîche, sweet = sucré, salty = salé,
        bitter = amer, sour = acide, frozen = surgelé""",
    "food": "ripe = mûr, raw = cru",
    "drink": "cold = froid, hot = chaud",
    "place": """
        quiet = tranquille, dark = sombre, distant = lointain, peaceful = paisible,
        deserted = désert, sunny = ensoleillé, narrow = étroit, crowded = bondé""",
    "text idea": """
        important = important, difficult = difficile, interesting = intéressant,
        strange = étrange, simple = simple, clear = clair, serious = sérieux,
        complex = complexe, boring = ennuyeux, funny = drôle, absurd = absurde,
        complete = complet/complète, public = public/publique, official = officiel,
        brilliant = brillant, rare = rare, recent = récent, mysterious = mystérieux,
        original = original, perfect = parfait""",
    "idea": """
        dangerous = dangereux, necessary = nécessaire, useless = inutile, urgent = urgent,
        legal = légal""",
    "group": "powerful = puissant, influential = influent, independent = indépendant",
    "nature": "magnificent = magnifique, deep = profond, invisible = invisible, immense = immense",
}

ADJECTIVES_RELATIONAL = {
    "idea group": """
        economic = économique, political = politique, social = social, national = national,
        cultural = culturel, scientific = scientifique, regional = régional, local = local,
        medical = médical, military = militaire, financial = financier, religious = religieux,
        industrial = industriel, international = international, agricultural = agricole,
        commercial = commercial, democratic = démocratique, technical = technique""",
    "text": """
        historical = historique, literary = littéraire, musical = musical, artistic = artistique""",
}
"""Kind-of adjectives; nearest to the noun in both languages."""

NATIONALITIES = {
    "person text idea group object clothing vehicle mass": """
        European = européen, French = français, English = anglais, German = allemand,
        Italian = italien, Spanish = espagnol, American = américain, Japanese = japonais,
        Russian = russe, Chinese = chinois, Canadian = canadien, Swiss = suisse,
        African = africain, Greek = grec/grecque, Portuguese = portugais, Belgian = belge,
        Dutch = néerlandais, Hungarian = hongrois, Norwegian = norvégien, Mexican = mexicain,
        Indian = indien, Turkish = turc/turque, Swedish = suédois, Austrian = autrichien,
        Brazilian = brésilien"""
}

MODIFIERS = """
    kitchen = de cuisine : table chair knife clock
    kitchen = de la cuisine : door window curtain
    garden = de jardin : table chair bench tool
    garden = du jardin : door
    office = de bureau : chair lamp computer
    office = du bureau : door window
    hotel = d'hôtel : bed bedroom
    hotel = de l'hôtel : director garden restaurant kitchen door
    school = de l'école : director garden library door window courtyard
    museum = du musée : director garden library door tower
    church = de l'église : door tower garden window clock
    castle = du château : tower garden door courtyard park
    hospital = de l'hôpital : director kitchen garden door
    city = de la ville : museum library park theatre hospital council mayor
    village = du village : school church baker doctor mayor council
    university = de l'université : library director hospital
    history = d'histoire : teacher book lesson museum
    science = de sciences : teacher book lesson museum
    music = de musique : teacher lesson
    art = d'art : museum book
    coffee = à café : cup spoon
    wine = de vin : bottle merchant
    milk = de lait : bottle
    water = d'eau : bottle
    sports = de sport : car shoe club newspaper
    evening = du soir : newspaper train
    night = de nuit : train nurse
    police = de police : car dog
    football = de football : team club stadium
    tennis = de tennis : shoe club
    gold = en or : ring necklace coin key
    silver = en argent : spoon ring necklace fork plate
    wooden = en bois : table chair door toy box bridge spoon ladder
    glass = en verre : bottle plate vase door
    leather = en cuir : bag jacket shoe boot glove belt armchair
    silk = en soie : shirt scarf jacket
    cotton = en coton : shirt skirt sock
    woollen = en laine : coat scarf sock blanket glove
    stone = en pierre : house bridge tower bench
    iron = en fer : door key bridge bed
"""
"""Nouns in front of nouns: modifier = French complement : the heads it goes with."""

VERBS = {
    "person animal | -": """
        sleep slept slept = dormir, arrive = arriver, leave left left = partir,
        come came come = venir, fall fell fallen = tomber, run ran run = courir,
        wait = attendre, come+back came come = revenir, stay = rester, die = mourir,
        suffer = souffrir, rest = se reposer, wake+up woke woken = se réveiller, jump = sauter,
        swim swam swum = nager, disappear = disparaître, escape = s'échapper,
        tremble = trembler, hide hid hidden = se cacher""",
    "person | -": """
        work = travailler, sing sang sung = chanter, laugh = rire, smile = sourire,
        cry = pleurer, speak spoke spoken = parler, dance = danser, travel = voyager,
        hesitate = hésiter, succeed = réussir, fail = échouer, hurry = se dépêcher,
        pray = prier, walk = marcher, shout = crier""",
    "idea text | -": "exist = exister, disappear = disparaître, change = changer",
    "weather | -": "rain = pleuvoir, snow = neiger",
    "person animal | food mass": """
        eat ate eaten = manger, taste = goûter, find found found = trouver,
        steal stole stolen = voler, smell = sentir""",
    "person | food mass": """
        prepare = préparer, order = commander, share = partager, buy bought bought = acheter""",
    "person animal | drink": "drink drank drunk = boire, taste = goûter",
    "person | drink": "pour = verser, order = commander",
    "person | object clothing furniture vehicle": """
        buy bought bought = acheter, see saw seen = voir, sell sold sold = vendre,
        choose chose chosen = choisir, lose lost lost = perdre, repair = réparer,
        find found found = trouver, touch = toucher, break broke broken = casser,
        forget forgot forgotten = oublier, wash = laver, keep kept kept = garder,
        take took taken = prendre, want! = vouloir, have! had had = avoir, own! = posséder,
        draw drew drawn = dessiner, push = pousser, pull = tirer, move = déplacer,
        replace = remplacer, receive = recevoir, look+at = regarder, look+for = chercher""",
    "person | object": """
        throw threw thrown = jeter, hold held held = tenir, lift = soulever, fill = remplir""",
    "person | clothing": "wear wore worn = porter",
    "person | vehicle": "drive drove driven = conduire",
    "person | text": """
        write wrote written = écrire, publish = publier, translate = traduire, study = étudier,
        finish = finir, understand understood understood = comprendre, describe = décrire,
        burn = brûler, sign = signer, explain = expliquer, learn = apprendre, copy = copier""",
    "person group | idea": """
        defend = défendre, accept = accepter, refuse = refuser, discuss = discuter,
        discover = découvrir, criticize = critiquer, reject = rejeter, support = soutenir,
        propose = proposer, fear! = craindre, imagine = imaginer, examine = examiner,
        announce = annoncer, control = contrôler, ignore = ignorer""",
    "person | person": """
        love! = aimer, admire = admirer, help = aider, invite = inviter,
        meet met met = rencontrer, thank = remercier, know! knew known = connaître,
        hate! = détester, kiss = embrasser, punish = punir, greet = saluer, protect = protéger,
        follow = suivre, hear heard heard = entendre, see saw seen = voir, look+at = regarder,
        wait+for = attendre, listen+to = écouter, look+for = chercher, call = appeler,
        convince = convaincre, betray = trahir, recognize = reconnaître, surprise = surprendre,
        comfort = consoler, scold = gronder""",
    "person | animal": """
        feed fed fed = nourrir, hunt = chasser, love! = aimer, see saw seen = voir,
        hear heard heard = entendre""",
    "person | place": """
        visit = visiter, build built built = construire, cross = traverser, explore = explorer,
        admire = admirer, see saw seen = voir, look+for = chercher""",
    "person | nature": """
        admire = admirer, see saw seen = voir, look+at = regarder, draw drew drawn = dessiner""",
    "animal | animal person": """
        follow = suivre, hear heard heard = entendre, fear! = craindre, see saw seen = voir,
        chase = poursuivre, bite bit bitten = mordre, attack = attaquer, look+at = regarder""",
    "person | à person": """
        speak+to spoke spoken = parler, answer = répondre, obey = obéir, phone = téléphoner,
        smile+at = sourire, write+to wrote written = écrire, resemble! = ressembler""",
    "person | de person idea text": """
        talk+about = parler, dream+of = rêver, laugh+at = se moquer, remember! = se souvenir,
        complain+about = se plaindre""",
    "person | give object": """
        give gave given = donner, show showed shown = montrer, sell sold sold = vendre,
        send sent sent = envoyer, offer = offrir, lend lent lent = prêter,
        bring brought brought = apporter, promise = promettre""",
    "person | motion": """
        go went gone = aller, return = retourner, run ran run = courir""",
    "person | origin": "come came come = venir, come+back came come = revenir",
    "person | that": """
        say said said = dire, think thought thought = penser, know! knew known = savoir,
        believe! = croire, hope = espérer, explain = expliquer, announce = annoncer,
        admit = admettre, forget forgot forgotten = oublier, promise = promettre""",
    "person | to": """
        want+to! = vouloir, hope+to = espérer, prefer+to! preferred preferred = préférer,
        try+to = essayer de, decide+to = décider de, begin+to began begun = commencer à,
        refuse+to = refuser de, learn+to = apprendre à, forget+to forgot forgotten = oublier de,
        have+to! had had = devoir""",
}
"""Subjects | objects: verb[+particle][! for a state] [past participle] = French verb.

A state has no progressive, and its English past is a French imperfect: he knew -> il savait.
"""

NAMES_M = row("Paul Pierre Thomas Lucas Louis Antoine Nicolas Olivier Victor Simon Arthur Marc")
NAMES_F = row("Marie Sophie Emma Julie Anna Claire Alice Nina Camille Laura Isabelle Sarah")

CITIES = """
    Paris = Paris, London = Londres, Rome = Rome, Berlin = Berlin, Madrid = Madrid,
    Brussels = Bruxelles, Geneva = Genève, Vienna = Vienne, Lisbon = Lisbonne, Athens = Athènes,
    Moscow = Moscou, Tokyo = Tokyo, Montreal = Montréal, Lyon = Lyon, Amsterdam = Amsterdam,
    Venice = Venise, Warsaw = Varsovie, Barcelona = Barcelone"""

COUNTRIES = """
    France = la France, Italy = la Italie, Spain = la Espagne, Germany = la Allemagne,
    England = la Angleterre, Belgium = la Belgique, Switzerland = la Suisse, China = la Chine,
    Russia = la Russie, Greece = la Grèce, Hungary = la Hongrie, Norway = la Norvège,
    Sweden = la Suède, Japan = le Japon, Canada = le Canada, Brazil = le Brésil,
    Portugal = le Portugal, Mexico = le Mexique, Morocco = le Maroc,
    the United States = les États-Unis, the Netherlands = les Pays-Bas"""

PROFESSIONS = frozenset(
    row("teacher doctor engineer judge minister artist journalist photographer dentist")
)
"""Said without an article, and alike for both sexes: elle est médecin."""

COMPARED = """
    small = smaller, big = bigger, old = older, young = younger, fat = fatter, long = longer,
    short = shorter, high = higher, rich = richer, poor = poorer, happy = happier, sad = sadder,
    strong = stronger, weak = weaker, wise = wiser, heavy = heavier, pretty = prettier,
    strange = stranger, simple = simpler, rare = rarer, clear = clearer, brave = braver,
    calm = calmer, fast = faster, clean = cleaner, dirty = dirtier, dark = darker, quiet = quieter,
    cold = colder, hot = hotter, fresh = fresher, sweet = sweeter, lazy = lazier, deep = deeper,
    proud = prouder, funny = funnier"""
"""Comparatives in -er; all others take `more`."""
